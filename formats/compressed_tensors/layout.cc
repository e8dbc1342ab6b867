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

const CompressedTensorsLayout& StoredLayout(const QuantScheme& scheme, bool packed) {
  return packed && scheme.code_type == CodeType::kInt ? PackedLayout() : LayoutOf(scheme);
}

std::string_view StoredScaleType(const QuantScheme& scheme) {
  return NameOf(scheme.scale_dtype == DType::kF8E8M0 ? DType::kU8 : scheme.scale_dtype);
}

void CompressedTensorsLayout::PackWords(const QuantizedModule&, const RowBand&,
                                        std::span<const TensorRows>) const {
  Check(false, "PackWords: the layout has no words");
}

void CompressedTensorsLayout::ReadWords(const ModuleTensors&, const QuantizedModule&, RowRange,
                                        RowBand&) const {
  Check(false, "ReadWords: the layout has no words");
}

std::vector<float> ReadScales(const ModuleTensors& tensors, const QuantScheme& scheme,
                              const std::vector<int64_t>& shape, RowRange range) {
  const auto bytes = tensors.Expect(kScale, StoredScaleType(scheme), shape);
  std::vector<float> scales =
      DecodeScales(LinesOf(bytes, shape.front(), range), scheme.scale_dtype);
  const int64_t first = range.begin * (std::ssize(scales) / range.count());
  const ScaleSign sign = SignOf(scheme);
  if (const std::optional<std::string> bad = FindBadScale(scales, sign, first)) {
    tensors.Fail(kScale,
                 *bad + (sign == ScaleSign::kEither ? "; scales must be finite and not zero"
                                                    : "; scales must be finite and above zero"));
  }
  return scales;
}

}  // namespace quantmill
