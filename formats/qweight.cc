#include "formats/qweight.h"

#include "formats/bitstream.h"
#include "formats/scales.h"

namespace quantmill {

std::vector<float> ReadTransposedScales(const ModuleTensors& tensors, const QuantizedModule& module,
                                        RowRange range) {
  const DType dtype = module.scheme.scale_dtype;
  const int64_t groups = module.scheme.GroupsFor(module.in);
  const auto bytes = tensors.Expect(kScales, NameOf(dtype), {groups, module.out});
  const std::vector<float> stored =
      DecodeScales(ColumnsOf(bytes, groups, range, SizeOf(dtype)), dtype);
  std::vector<float> scales(stored.size());
  Transpose<float>(stored, groups, range.count(), scales);
  if (const auto bad = FindBadScale(scales, SignOf(module.scheme), range.begin * groups)) {
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
