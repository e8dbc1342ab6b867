// MODEL of the command line: a checkpoint or artifact opened for reading, with the description of
// its decoder. Every tensor the description names has been found with the right shape.
#ifndef QUANTMILL_QUANT_MODEL_MODEL_SOURCE_H_
#define QUANTMILL_QUANT_MODEL_MODEL_SOURCE_H_

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "formats/checkpoint.h"
#include "quant/model/decoder_spec.h"
#include "quant/model/dense_matrix.h"
#include "quant/model/gguf_model.h"

namespace quantmill {

// Move-only. Tensors are read lazily from mapped files; nothing is cached.
class ModelSource {
 public:
  // model: a folder, a hub id in the local Hugging Face cache, or a GGUF file, which is seen as
  // `gguf` says. Errors name file and tensor.
  static ModelSource Open(const std::string& model, const GgufReading& gguf = {});
  // A checkpoint that stands for `original` (which must outlive it), made from it in `folder` for a
  // while. `derivation`: how, as artifacts record it.
  static ModelSource OpenStandIn(const std::string& folder, const ModelSource& original,
                                 const nlohmann::json& derivation);

  const std::string& path() const { return path_; }  // as given; a stand-in has its original's
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  // What the user named: this, or what this stands for.
  const ModelSource& original() const { return original_ == nullptr ? *this : *original_; }
  const nlohmann::json* derivation() const { return derivation_.get(); }  // null: no stand-in
  const DecoderSpec& spec() const { return spec_; }
  // The format of quantized linears; null for a dense checkpoint.
  const ArtifactReader* artifact() const { return artifact_.get(); }

  // The scheme of a linear, or nothing when its weight is dense.
  std::optional<QuantScheme> SchemeOf(const LinearSpec& linear) const;
  // The dense weight, mapped where it is stored [out, in]; the linear must not be quantized.
  // Error(kBadInput) naming tensor, offset and element if one is NaN or infinite. Release it
  // afterwards.
  DenseMatrix DenseWeight(const LinearSpec& linear) const;
  QuantizedLinear ReadQuantized(const LinearSpec& linear) const;
  // The tensor that holds a dense linear's weight: the embedding for a tied lm_head.
  std::string WeightName(const LinearSpec& linear) const;
  // A 1-D tensor as [1, n] F32 host memory, checked to be finite.
  Tensor ReadVector(const std::string& name) const;
  // How the artifact wants keys and values cached: kFp8, or kNone (dense checkpoints too).
  KvScheme kv_scheme() const;
  // The scales of a block's cache. REQUIRES: kv_scheme() is kFp8.
  KvScales ReadKvScales(const BlockSpec& block) const;
  void Release(const LinearSpec& linear) const;  // lets resident pages of its tensors go

  // The type of dense linear weights (of the first one).
  DType dense_dtype() const;
  // Tensors that belong to no layer of the description: carried through untouched, and listed.
  const std::vector<std::string>& unknown_tensors() const { return unknown_tensors_; }

 private:
  ModelSource() = default;
  void CheckTensors();

  std::string path_;
  std::unique_ptr<Checkpoint> checkpoint_;
  const ModelSource* original_ = nullptr;
  std::shared_ptr<const nlohmann::json> derivation_;
  std::unique_ptr<ArtifactReader> artifact_;
  DecoderSpec spec_;
  std::vector<std::string> unknown_tensors_;
};

// Throws Error(kBadInput) at the first NaN or infinity of a dense matrix; `location` is the
// tensor's.
void CheckFinite(ConstMatrix matrix, const std::string& location);

// The bytes of `values` in a dense type: F32, or F16 or BF16 rounded to nearest even.
std::vector<std::byte> StoredAs(DType dtype, std::span<const float> values);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_MODEL_SOURCE_H_
