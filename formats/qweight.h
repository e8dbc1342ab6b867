// What GPTQ and AWQ files have in common: the names of a module's tensors, and scales by input
// group. Private to formats/.
#ifndef QUANTMILL_FORMATS_QWEIGHT_H_
#define QUANTMILL_FORMATS_QWEIGHT_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "formats/module_reader.h"

namespace quantmill {

inline constexpr std::string_view kQweight = ".qweight";
inline constexpr std::string_view kQzeros = ".qzeros";
inline constexpr std::string_view kScales = ".scales";
inline constexpr std::string_view kGroupIndex = ".g_idx";

// Modules are known by their tensor `.qweight`.
class QweightReader : public ModuleReader {
 protected:
  // suffixes: of a module's tensors, kQweight first.
  QweightReader(const Checkpoint& checkpoint, std::vector<std::string_view> suffixes)
      : ModuleReader(checkpoint, std::move(suffixes)) {}
  std::string_view ScaleSuffix(const ModuleTensors&) const final { return kScales; }
};

// Scales of rows of a module, stored [groups, out], as [rows, groups]; checked.
std::vector<float> ReadTransposedScales(const ModuleTensors& tensors, const QuantizedModule& module,
                                        RowRange range);
// The inverse: scales [out, groups] as they are stored, F16 [groups, out].
std::vector<std::byte> TransposedScales(const QuantizedLinear& linear);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_QWEIGHT_H_
