#include "formats/compressed_tensors/kv_scales.h"

#include "formats/compressed_tensors/layout.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// The library calibrates (batch, heads, tokens, head_dim) with all but the heads reduced to one.
std::vector<int64_t> ScaleShape(const KvScheme& kv, int64_t kv_heads) {
  return kv.per_head ? std::vector<int64_t>{kv_heads, 1, 1} : std::vector<int64_t>{1};
}

}  // namespace

std::vector<TensorDeclaration> DeclareKvScales(const std::string& attention, const KvScheme& kv,
                                               int64_t kv_heads) {
  if (kv.type == KvScheme::Type::kNone) return {};
  const std::vector<int64_t> shape = ScaleShape(kv, kv_heads);
  return {Declare(attention + std::string(kKeyScale), DType::kF32, shape),
          Declare(attention + std::string(kValueScale), DType::kF32, shape)};
}

void WriteKvScales(const std::string& attention, const KvScales& scales, CheckpointWriter& writer) {
  writer.Write(attention + std::string(kKeyScale),
               EncodeScales(scales.key, DType::kF32, ScaleSign::kPositive));
  writer.Write(attention + std::string(kValueScale),
               EncodeScales(scales.value, DType::kF32, ScaleSign::kPositive));
}

std::vector<float> ReadKvScale(const Checkpoint& checkpoint, const std::string& attention,
                               std::string_view suffix, const KvScheme& kv, int64_t kv_heads) {
  const ModuleTensors tensors(checkpoint, attention);
  const TensorInfo& info = tensors.Info(suffix);
  const int64_t count = kv.per_head ? kv_heads : 1;
  const std::optional<DType> dtype = info.type();
  // Any shape of that many numbers: tools write [], [1], [heads] and [heads, 1, 1].
  if (!dtype || !IsDenseFloat(*dtype) || info.elements() != count) {
    tensors.Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected F32 " +
                             ShapeString(ScaleShape(kv, kv_heads)));
  }
  std::vector<float> scales = DecodeScales(tensors.Expect(suffix, info.dtype, info.shape), *dtype);
  if (const std::optional<std::string> bad = FindBadScale(scales, ScaleSign::kPositive)) {
    tensors.Fail(suffix, *bad + "; scales of the cache must be finite and above zero");
  }
  return scales;
}

}  // namespace quantmill
