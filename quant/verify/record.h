// quantmill.json: what `quantize` recorded beside the weights.
#ifndef QUANTMILL_QUANT_VERIFY_RECORD_H_
#define QUANTMILL_QUANT_VERIFY_RECORD_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "quant/model/folding.h"

namespace quantmill {

inline constexpr const char* kRecordName = "quantmill.json";

struct RecordedLayer {
  std::string scheme;       // Describe(QuantScheme), or "dense"
  double weight_error = 0;  // |dW|^2 / |W|^2
};

struct ArtifactRecord {
  std::map<std::string, RecordedLayer> layers;  // by module name
  std::map<std::string, std::string> files;     // name in the folder -> SHA-256, 64 digits
  std::map<std::string, BlockFolding>
      folding;                     // by BlockSpec::prefix; blocks without one: identity
  std::string kv_scheme = "none";  // KvText
  int64_t fallbacks = 0;           // events that are one
  nlohmann::json rotation;         // Rotation::Json() of the original; null: not rotated
};

// Nothing if `folder` has no quantmill.json: the artifact is another tool's. Throws
// Error(kBadInput) naming the key for a file that is no such record, a layer listed twice, a file
// name that leaves the folder, or a folding of no block of `spec`.
std::optional<ArtifactRecord> ReadRecord(const std::filesystem::path& folder,
                                         const DecoderSpec& spec);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_RECORD_H_
