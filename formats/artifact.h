// The narrow interface of quantized formats. A format packs and unpacks QuantizedLinear; it never
// knows which method made the numbers or what the module is for.
#ifndef QUANTMILL_FORMATS_ARTIFACT_H_
#define QUANTMILL_FORMATS_ARTIFACT_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/checkpoint_writer.h"
#include "formats/packed_rows.h"
#include "formats/row_band.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// Scales of the FP8 cache of one attention module: value = number(code) * scale. One of each for
// all heads, or one for each key-value head (KvScheme::per_head). Finite and above zero.
struct KvScales {
  std::vector<float> key;
  std::vector<float> value;
  friend bool operator==(const KvScales&, const KvScales&) = default;
};

// How one format stores modules. Stateless: methods may be called from any thread.
// Order of use: CheckSupported for every module, CheckTogether, Declare for every module (before
// the CheckpointWriter is made), Write (or PackedRows) for every module, QuantizationConfig into
// config.json.
// Likewise CheckSupportedKv, DeclareKv and WriteKv for every attention module where the cache is
// quantized.
class ArtifactWriterFormat : public RowPacker {
 public:
  // As --format spells it.
  virtual std::string_view name() const = 0;
  // The only type that the format has for scales of integers and FP8; nothing: that of the
  // checkpoint.
  virtual std::optional<DType> scale_type() const { return std::nullopt; }
  // Whether every group has a zero point, so that symmetric schemes must be told in another way
  // (formats/zero_points.h).
  virtual bool needs_zero_points() const { return false; }
  // Throws Error(kUsage, module name) with the reason if the format cannot hold the module.
  virtual void CheckSupported(const QuantizedModule& module) const = 0;
  // The same for what modules cannot be in one file.
  virtual void CheckTogether(std::span<const QuantizedModule>) const {}
  // A whole module. REQUIRES: `writer` was made with Declare of it (same scheme, out, in).
  void Write(const std::string& module, const QuantizedLinear& linear,
             CheckpointWriter& writer) const;

  // Throws Error(kUsage) for a cache that the file does not speak of: kInt8 and kInt4 are choices
  // of whoever runs the model.
  virtual void CheckSupportedKv(const KvScheme& kv) const = 0;
  // `attention`: the module that holds the projections, e.g. "model.layers.0.self_attn". Empty for
  // KvScheme::Type::kNone.
  virtual std::vector<TensorDeclaration> DeclareKv(const std::string& attention, const KvScheme& kv,
                                                   int64_t kv_heads) const = 0;
  // REQUIRES: `writer` was made with DeclareKv of this module; one scale or kv_heads as declared.
  virtual void WriteKv(const std::string& attention, const KvScales& scales,
                       CheckpointWriter& writer) const = 0;

  // The value of `quantization_config`. `dense`: names of the linear layers left unquantized.
  virtual nlohmann::json QuantizationConfig(std::span<const QuantizedModule> modules,
                                            std::span<const std::string> dense,
                                            const KvScheme& kv) const = 0;
};

// One defect that CheckTensors found.
struct TensorProblem {
  enum class Kind { kMissing, kExtra, kConstant, kNonFinite, kInvalid };
  Kind kind;
  std::string tensor;
  std::string what;
};
std::string_view NameOf(TensorProblem::Kind kind);  // "missing", "extra", ...

// Reads a quantized checkpoint, which must outlive it. Const methods may be called from any thread.
// Errors are Error(kBadInput) whose `where` is Checkpoint::Location of the tensor.
class ArtifactReader {
 public:
  virtual ~ArtifactReader() = default;

  virtual std::string_view format() const = 0;
  // Names of the modules whose quantized tensors are in the file, sorted.
  virtual const std::vector<std::string>& modules() const = 0;
  // `module`: any linear layer of the model. Empty if it is stored dense. Throws if configuration
  // and tensors disagree: a target left dense, or an ignored layer that is packed.
  virtual std::optional<QuantScheme> SchemeOf(const std::string& module) const = 0;
  // Shape and scheme, without unpacking. REQUIRES: SchemeOf(module) has a value.
  virtual QuantizedModule Describe(const std::string& module) const = 0;
  // Everything is checked: dtypes, shapes, padding bits, float codes that are NaN, scales finite
  // and not zero, and below zero only for symmetric integers.
  QuantizedLinear Read(const std::string& module) const;
  // Its rows alone, in `rows`, whose memory is used again; errors count rows of the whole. What
  // concerns the module as a whole is checked with its first rows. REQUIRES: `module` is what
  // Describe said; `range` is not empty and begins and ends as RowUnit says.
  virtual void ReadRows(const QuantizedModule& module, RowRange range,
                        QuantizedLinear& rows) const = 0;
  // Whether the file has the codes of a module in the words of RowBand.
  virtual bool HasWords(const QuantizedModule&) const { return false; }
  // ReadRows with the words of the rows instead of their codes: in the mapped file, which they then
  // need until Release, or in the band's memory. REQUIRES: HasWords.
  virtual void ReadWords(const QuantizedModule& module, RowRange range, RowBand& band) const;
  // Names of the tensors that hold the module's quantized weight (no bias).
  virtual std::vector<std::string> TensorsOf(const std::string& module) const = 0;

  // How the file wants keys and values cached: kFp8, or kNone.
  virtual KvScheme kv_scheme() const = 0;
  // REQUIRES: kv_scheme() is kFp8. Throws for a missing, non-finite or non-positive scale, and
  // unless there are one (kv_heads, if per head) of each.
  virtual KvScales ReadKv(const std::string& attention, int64_t kv_heads) const = 0;
  // Names of the tensors of ReadKv that are in the file.
  virtual std::vector<std::string> KvTensorsOf(const std::string& attention) const = 0;

  // Looks at every tensor of the file, dense ones too (NaN, infinity, a 2-D weight that is
  // constant); never stops at the first. Empty: sound. Sorted by tensor. Reads the whole file.
  virtual std::vector<TensorProblem> CheckTensors() const = 0;
};

// Null for a checkpoint without `quantization_config`. Throws Error(kBadInput) naming a
// quant_method or an option that this build cannot read.
std::unique_ptr<ArtifactReader> OpenArtifactReader(const Checkpoint& checkpoint);

// All that --format takes, as it is listed to people: the writers, and gguf, which is no artifact
// folder (formats/gguf.h).
std::vector<std::string> FormatNames();

// The writer that --format names; the object is static. Throws Error(kUsage) listing the names.
const ArtifactWriterFormat& FindArtifactFormat(std::string_view name);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_ARTIFACT_H_
