// How the tensors of one module are laid out: one implementation for each family of the format's
// layouts. Private to formats/.
#ifndef QUANTMILL_FORMATS_COMPRESSED_TENSORS_LAYOUT_H_
#define QUANTMILL_FORMATS_COMPRESSED_TENSORS_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/artifact.h"
#include "formats/module_tensors.h"

namespace quantmill {

// Names of a module's tensors are the module's and one of these.
inline constexpr std::string_view kWeight = ".weight";
inline constexpr std::string_view kPacked = ".weight_packed";
inline constexpr std::string_view kScale = ".weight_scale";
inline constexpr std::string_view kZeroPoint = ".weight_zero_point";
inline constexpr std::string_view kShape = ".weight_shape";
inline constexpr std::string_view kGlobalScale = ".weight_global_scale";
inline constexpr std::string_view kInputGlobalScale = ".input_global_scale";
inline constexpr std::string_view kWeightGroupIndex = ".weight_g_idx";
inline constexpr std::string_view kInputScale = ".input_scale";
inline constexpr std::string_view kInputZeroPoint = ".input_zero_point";

// Stateless; methods may be called from any thread.
class CompressedTensorsLayout {
 public:
  virtual ~CompressedTensorsLayout() = default;

  // The value of `format` that the library gives a module of this scheme.
  virtual std::string_view FormatOf(const QuantScheme& scheme) const = 0;
  // Whether a file that says `format` may hold the scheme so. `format` is a name that is known.
  virtual bool IsReadableAs(std::string_view format, const QuantScheme& scheme) const = 0;

  // What makes a scheme one that this layout neither reads nor writes, for people; or empty.
  virtual std::string Problem(const QuantScheme& scheme) const = 0;
  // Why a module cannot be written, for people; empty if it can. REQUIRES: no Problem.
  virtual std::string Refusal(const QuantizedModule& module) const = 0;
  // REQUIRES: no Refusal.
  virtual std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const = 0;
  // As RowPacker says.
  virtual void PackRows(const QuantizedModule& module, const QuantizedLinear& rows,
                        std::span<const TensorRows> to) const = 0;

  // The tensors that a module of this scheme has, the one with the codes first.
  virtual std::vector<std::string_view> Suffixes(const QuantScheme& scheme) const = 0;
  // {out, in}, checked to be possible.
  virtual std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors) const = 0;
  // Rows of `module`. `rows` comes from StartRows; everything else is filled. Throws
  // Error(kBadInput).
  virtual void ReadRows(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                        QuantizedLinear& rows) const = 0;

  // As RowPacker and ArtifactReader say.
  virtual bool HasWords() const { return false; }
  virtual void PackWords(const QuantizedModule& module, const RowBand& band,
                         std::span<const TensorRows> to) const;
  virtual void ReadWords(const ModuleTensors& tensors, const QuantizedModule& module,
                         RowRange range, RowBand& band) const;
};

const CompressedTensorsLayout& PackedLayout();  // packed.cc
const CompressedTensorsLayout& PlainLayout();   // plain.cc
const CompressedTensorsLayout& Fp4Layout();     // fp4.cc

// The layout that the library chooses for a scheme: integers without rounded inputs are packed, FP4
// has its own, the rest is plain.
const CompressedTensorsLayout& LayoutOf(const QuantScheme& scheme);
// The layout of a module that is stored with packed integers, or not: those with rounded inputs may
// be, where the tool that made the file chose so.
const CompressedTensorsLayout& StoredLayout(const QuantScheme& scheme, bool packed);

// How a file stores a scale: E8M0 scales are plain bytes to the library.
std::string_view StoredScaleType(const QuantScheme& scheme);
// Of scales of `shape`, those of the first dimension's `range`, checked: finite, not zero, of the
// scheme's sign.
std::vector<float> ReadScales(const ModuleTensors& tensors, const QuantScheme& scheme,
                              const std::vector<int64_t>& shape, RowRange range);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_COMPRESSED_TENSORS_LAYOUT_H_
