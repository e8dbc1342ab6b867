#include "formats/compressed_tensors/layout.h"

#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {

const CompressedTensorsLayout& LayoutOf(const QuantScheme& scheme) {
  if (scheme.code_type == CodeType::kFp4) return Fp4Layout();
  const bool packed =
      scheme.code_type == CodeType::kInt && scheme.input.type == InputScheme::Type::kNone;
  return packed ? PackedLayout() : PlainLayout();
}

std::string_view StoredScaleType(const QuantScheme& scheme) {
  return NameOf(scheme.scale_dtype == DType::kF8E8M0 ? DType::kU8 : scheme.scale_dtype);
}

std::vector<float> ReadScales(const ModuleTensors& tensors, const QuantScheme& scheme,
                              const std::vector<int64_t>& shape) {
  std::vector<float> scales =
      DecodeScales(tensors.Expect(kScale, StoredScaleType(scheme), shape), scheme.scale_dtype);
  const ScaleSign sign = SignOf(scheme);
  if (const std::optional<std::string> bad = FindBadScale(scales, sign)) {
    tensors.Fail(kScale,
                 *bad + (sign == ScaleSign::kEither ? "; scales must be finite and not zero"
                                                    : "; scales must be finite and above zero"));
  }
  return scales;
}

float ReadPositive(const ModuleTensors& tensors, std::string_view suffix) {
  const std::optional<DType> dtype = tensors.Info(suffix).type();
  const bool is_float = dtype && IsDenseFloat(*dtype);
  const std::span<const std::byte> bytes =
      tensors.Expect(suffix, NameOf(is_float ? *dtype : DType::kF32), {1});
  const std::vector<float> value = DecodeScales(bytes, is_float ? *dtype : DType::kF32);
  if (const std::optional<std::string> bad = FindBadScale(value, ScaleSign::kPositive)) {
    tensors.Fail(suffix, *bad + "; it must be finite and above zero");
  }
  return value[0];
}

}  // namespace quantmill
