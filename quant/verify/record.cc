#include "quant/verify/record.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/json.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

[[noreturn]] void Fail(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where,
              what + "; the record is damaged, so nothing in it can be checked");
}

const nlohmann::json& Member(const nlohmann::json& object, const char* key,
                             const std::string& where) {
  if (!object.is_object() || !object.contains(key)) Fail(where, std::string("no '") + key + "'");
  return object.at(key);
}

std::string Text(const nlohmann::json& value, const char* key, const std::string& where) {
  if (!value.is_string()) Fail(where, std::string("'") + key + "' is no string");
  return value.get<std::string>();
}

std::map<std::string, BlockFolding> ReadFolding(const nlohmann::json& json, const DecoderSpec& spec,
                                                const std::string& where) {
  std::map<std::string, BlockFolding> folding;
  if (!json.contains("folding")) return folding;
  if (!json.at("folding").is_object()) Fail(where, "'folding' is no object");
  for (const auto& [prefix, block] : json.at("folding").items()) {
    const auto known = std::ranges::find(spec.blocks, prefix, &BlockSpec::prefix);
    if (known == spec.blocks.end()) {
      Fail(where, "'folding' names '" + prefix + "', which is no block of the model");
    }
    folding.emplace(prefix, ParseFolding(block, spec, *known, where));
  }
  return folding;
}

int64_t CountFallbacks(const nlohmann::json& events, const std::string& where) {
  if (!events.is_array()) Fail(where, "'events' is no array");
  int64_t count = 0;
  for (const nlohmann::json& event : events) {
    const nlohmann::json& is_fallback = Member(event, "is_fallback", where);
    if (!is_fallback.is_boolean())
      Fail(where, "'is_fallback' of an event is neither true nor false");
    count += is_fallback.get<bool>() ? 1 : 0;
  }
  return count;
}

}  // namespace

std::optional<ArtifactRecord> ReadRecord(const std::filesystem::path& folder,
                                         const DecoderSpec& spec) {
  const std::filesystem::path path = folder / kRecordName;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::string where = path.string();
  const nlohmann::json json = ReadJsonFile(path);

  ArtifactRecord record;
  const nlohmann::json& layers = Member(json, "layers", where);
  if (!layers.is_array()) Fail(where, "'layers' is no array");
  for (const nlohmann::json& layer : layers) {
    const std::string name = Text(Member(layer, "name", where), "name", where);
    const nlohmann::json& error = Member(layer, "weight_error", where);
    if (!error.is_number()) Fail(where, "'weight_error' of layer '" + name + "' is no number");
    const RecordedLayer recorded{Text(Member(layer, "scheme", where), "scheme", where),
                                 error.get<double>()};
    if (!record.layers.emplace(name, recorded).second) {
      Fail(where, "layer '" + name + "' is listed twice");
    }
  }
  const nlohmann::json& files = Member(json, "files", where);
  if (!files.is_object()) Fail(where, "'files' is no object");
  for (const auto& [name, hash] : files.items()) {
    if (name.empty() || std::filesystem::path(name).filename() != name || name == "." ||
        name == "..") {
      Fail(where, "file name '" + name + "' leaves the folder");
    }
    record.files.emplace(name, Text(hash, "files", where));
  }
  if (json.contains("recipe") && json.at("recipe").contains("kv_scheme")) {
    record.kv_scheme = Text(json.at("recipe").at("kv_scheme"), "kv_scheme", where);
  }
  record.fallbacks = CountFallbacks(Member(json, "events", where), where);
  if (json.contains("rotation")) record.rotation = json.at("rotation");
  record.folding = ReadFolding(json, spec, where);
  return record;
}

}  // namespace quantmill
