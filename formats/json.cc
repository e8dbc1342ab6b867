#include "formats/json.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "formats/file.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// The keys of every object that is open, from the outermost.
using OpenKeys = std::vector<std::set<std::string>>;

void NoteKey(OpenKeys& open, const std::string& key, size_t offset, const std::string& where) {
  if (open.back().insert(key).second) return;
  throw Error(
      ErrorCode::kBadInput, where,
      "key '" + key + "' given twice in one object (byte offset " + std::to_string(offset) + ")");
}

}  // namespace

nlohmann::json ParseJson(std::string_view text, const std::string& where) {
  // The parser takes NUL for the end of its input, so whatever follows one would go unseen.
  if (const size_t at = text.find('\0'); at != std::string_view::npos) {
    throw Error(ErrorCode::kBadInput, where,
                "not valid JSON: a NUL byte (byte offset " + std::to_string(at) + ")");
  }
  size_t offset = 0;
  OpenKeys open;
  const auto on_event = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth >= kMaxJsonDepth) {
      throw Error(ErrorCode::kBadInput, where,
                  "nested deeper than " + std::to_string(kMaxJsonDepth) + " levels (byte offset " +
                      std::to_string(offset) + ")");
    }
    if (event == Event::object_start) open.emplace_back();
    if (event == Event::object_end) open.pop_back();
    if (event == Event::key) NoteKey(open, value.get_ref<std::string&>(), offset, where);
    return true;
  };
  try {
    return nlohmann::json::parse(CountingIterator(text.data(), &offset),
                                 CountingIterator(text.data() + text.size(), &offset), on_event);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kBadInput, where,
                "not valid JSON (byte offset " + std::to_string(offset) + "): " + error.what());
  }
}

nlohmann::json ReadJsonFile(const std::filesystem::path& path) {
  return ParseJson(ReadTextFile(path, kMaxJsonBytes), path.string());
}

}  // namespace quantmill
