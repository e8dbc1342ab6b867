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

}  // namespace quantmill
