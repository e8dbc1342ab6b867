#include "formats/qweight.h"

#include <optional>
#include <string>

#include "formats/bitstream.h"
#include "formats/scales.h"

namespace quantmill {

std::vector<float> ReadTransposedScales(const ModuleTensors& tensors,
                                        const QuantizedLinear& linear) {
  const DType dtype = linear.scheme.scale_dtype;
  const std::vector<float> stored =
      DecodeScales(tensors.Expect(kScales, NameOf(dtype), {linear.groups(), linear.out}), dtype);
  std::vector<float> scales(stored.size());
  Transpose<float>(stored, linear.groups(), linear.out, scales);
  if (const std::optional<std::string> bad = FindBadScale(scales, SignOf(linear.scheme))) {
    tensors.Fail(kScales, *bad + " (counted output by output)");
  }
  return scales;
}

std::vector<std::byte> TransposedScales(const QuantizedLinear& linear) {
  std::vector<float> stored(linear.scales.size());
  Transpose<float>(linear.scales, linear.out, linear.groups(), stored);
  return EncodeScales(stored, DType::kF16, SignOf(linear.scheme));
}

}  // namespace quantmill
