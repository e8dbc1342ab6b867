// Scales of a quantized cache of keys and values, which belong to attention modules. Private to
// formats/.
#ifndef QUANTMILL_FORMATS_COMPRESSED_TENSORS_KV_SCALES_H_
#define QUANTMILL_FORMATS_COMPRESSED_TENSORS_KV_SCALES_H_

#include <string>
#include <vector>

#include "formats/artifact.h"

namespace quantmill {

inline constexpr std::string_view kKeyScale = ".k_scale";
inline constexpr std::string_view kValueScale = ".v_scale";

// As ArtifactWriterFormat and ArtifactReader ask for them. kv is kNone or kFp8.
std::vector<TensorDeclaration> DeclareKvScales(const std::string& attention, const KvScheme& kv,
                                               int64_t kv_heads);
void WriteKvScales(const std::string& attention, const KvScales& scales, CheckpointWriter& writer);
// suffix: kKeyScale or kValueScale.
std::vector<float> ReadKvScale(const Checkpoint& checkpoint, const std::string& attention,
                               std::string_view suffix, const KvScheme& kv, int64_t kv_heads);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_COMPRESSED_TENSORS_KV_SCALES_H_
