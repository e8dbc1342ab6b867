#include "quant/pipeline/resume.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "kernels/core/error.h"

namespace quantmill {

using nlohmann::json;

// Found by the library through the types' namespace.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LayerResult, name, scheme, relative_error, rounded_error,
                                   target_strength, weight_error)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MixtureCoverage, block, top_k, tokens)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Event, kind, where, what, is_fallback)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KvScales, key, value)

namespace {

template <typename T>
std::vector<T> Behind(const std::vector<T>& all, size_t count) {
  return {all.begin() + static_cast<std::ptrdiff_t>(count), all.end()};
}

template <typename T>
void Append(const json& values, std::vector<T>& to) {
  for (T& value : values.get<std::vector<T>>()) to.push_back(std::move(value));
}

json FileIdentity(const std::filesystem::path& path) {
  return {{"bytes", std::filesystem::file_size(path)},
          {"changed", std::filesystem::last_write_time(path).time_since_epoch().count()}};
}

}  // namespace

json RunIdentity(const ModelSource& source, const QuantizePlan& plan,
                 const std::string& backend_isa, const std::string& calibration_sha256) {
  const Checkpoint& original = source.original().checkpoint();
  json files = json::object();
  for (const std::filesystem::path& file : original.weight_files()) {
    files[file.filename().string()] = FileIdentity(file);
  }
  json identity = {
      {"quantmill", QUANTMILL_VERSION},    {"backend", backend_isa},
      {"recipe", RecipeJson(plan.recipe)}, {"model", std::move(files)},
      {"config", original.config()},       {"calibration_tokens_sha256", calibration_sha256}};
  if (source.derivation() != nullptr) identity["rotation"] = *source.derivation();
  return identity;
}

ReportMark MarkOf(const QuantizeReport& report) {
  return {report.layers.size(), report.mixtures.size(), report.events.size()};
}

json RecordJson(const QuantizeReport& report, const ReportMark& before, const BlockRecord& record) {
  json result = {{"layers", Behind(report.layers, before.layers)},
                 {"mixtures", Behind(report.mixtures, before.mixtures)},
                 {"events", Behind(report.events, before.events)},
                 {"folding", FoldingJson(record.folding)}};
  if (record.kv) result["kv"] = *record.kv;
  return result;
}

BlockRecord ReadRecord(const json& record, const DecoderSpec& spec, const BlockSpec& block,
                       const std::string& where, QuantizeReport& report) {
  BlockRecord result;
  try {
    Append(record.at("layers"), report.layers);
    Append(record.at("mixtures"), report.mixtures);
    Append(record.at("events"), report.events);
    if (record.contains("kv")) result.kv = record.at("kv").get<KvScales>();
    result.folding = ParseFolding(record.at("folding"), spec, block, where);
  } catch (const json::exception& error) {
    throw Error(ErrorCode::kBadInput, where,
                "is no record of a finished block (" + std::string(error.what()) +
                    "); remove the folder and begin again");
  }
  return result;
}

}  // namespace quantmill
