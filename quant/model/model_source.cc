#include "quant/model/model_source.h"

#include <cstring>
#include <set>
#include <utility>

#include "kernels/core/error.h"
#include "quant/model/families.h"

namespace quantmill {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

// Collects the tensors that a description accounts for, and checks each.
class TensorCheck {
 public:
  explicit TensorCheck(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  void Expect(const std::string& name, const std::vector<int64_t>& shape) {
    known_.insert(name);
    if (!checkpoint_.Has(name)) {
      throw Error(ErrorCode::kBadInput, checkpoint_.folder().string(),
                  "tensor '" + name + "' is missing; config.json asks for it with shape " +
                      ShapeText(shape));
    }
    const std::vector<int64_t>& found = checkpoint_.Info(name).shape;
    if (found != shape) {
      throw Error(
          ErrorCode::kBadInput, checkpoint_.Location(name),
          "shape is " + ShapeText(found) + ", but config.json asks for " + ShapeText(shape));
    }
  }
  void Known(const std::string& name) { known_.insert(name); }

  std::vector<std::string> Unknown() const {
    std::vector<std::string> unknown;
    for (const std::string& name : checkpoint_.names()) {
      if (!known_.contains(name)) unknown.push_back(name);
    }
    return unknown;
  }

 private:
  const Checkpoint& checkpoint_;
  std::set<std::string> known_;
};

}  // namespace

void CheckFinite(ConstMatrix matrix, const std::string& location) {
  const std::optional<int64_t> bad = FindNonFinite(matrix);
  if (!bad) return;
  throw Error(
      ErrorCode::kBadInput, location,
      "element [" + std::to_string(*bad / matrix.cols) + ", " + std::to_string(*bad % matrix.cols) +
          "] is NaN or infinite; the checkpoint is damaged or overflowed when it was saved");
}

std::vector<std::byte> StoredAs(DType dtype, std::span<const float> values) {
  const auto size = static_cast<size_t>(SizeOf(dtype));
  std::vector<std::byte> bytes(values.size() * size);
  for (size_t i = 0; i < values.size(); ++i) {
    std::byte* to = bytes.data() + i * size;
    if (dtype == DType::kF32) {
      std::memcpy(to, &values[i], size);
    } else {
      const uint16_t bits = dtype == DType::kF16 ? ToF16(values[i]).bits : ToBF16(values[i]).bits;
      std::memcpy(to, &bits, size);
    }
  }
  return bytes;
}

ModelSource ModelSource::Open(const std::string& model, const GgufReading& gguf) {
  ModelSource source;
  source.path_ = model;
  ModelFiles files = OpenModelFiles(model, gguf);
  source.checkpoint_ = std::move(files.checkpoint);
  source.artifact_ = std::move(files.artifact);
  source.spec_ = DescribeDecoder(*source.checkpoint_);
  source.CheckTensors();
  return source;
}

ModelSource ModelSource::OpenStandIn(const std::string& folder, const ModelSource& original,
                                     const nlohmann::json& derivation) {
  ModelSource source = Open(folder);
  source.path_ = original.path();
  source.original_ = &original;
  source.derivation_ = std::make_shared<const nlohmann::json>(derivation);
  return source;
}

void ModelSource::CheckTensors() {
  TensorCheck check(*checkpoint_);
  const auto expect_linear = [&](const LinearSpec& linear) {
    if (SchemeOf(linear)) {
      for (const std::string& name : artifact_->TensorsOf(linear.name)) check.Known(name);
    } else {
      check.Expect(linear.name + ".weight", linear.stored_shape());
    }
    if (linear.bias) check.Expect(linear.name + ".bias", {linear.out});
  };
  const auto expect_vector = [&](const std::string& name, int64_t size) {
    if (!name.empty()) check.Expect(name, {size});
  };
  check.Expect(spec_.embedding, {spec_.vocab, spec_.embedding_width()});
  if (!spec_.position_embedding.empty()) {
    check.Expect(spec_.position_embedding,
                 {spec_.max_positions + spec_.position_offset, spec_.hidden});
  }
  for (const std::string* norm : {&spec_.embedding_norm, &spec_.embedding_norm_bias,
                                  &spec_.final_norm, &spec_.final_norm_bias}) {
    expect_vector(*norm, spec_.hidden);
  }
  for (const LinearSpec* linear : spec_.Projections()) expect_linear(*linear);
  for (const BlockSpec& block : spec_.blocks) {
    for (const std::string* norm :
         {&block.attention_norm, &block.attention_norm_bias, &block.attention_post_norm,
          &block.mlp_norm, &block.mlp_norm_bias, &block.mlp_post_norm}) {
      expect_vector(*norm, spec_.hidden);
    }
    expect_vector(block.query_norm, spec_.head_dim);
    expect_vector(block.key_norm, spec_.head_dim);
    for (const LinearSpec* linear : block.Linears()) expect_linear(*linear);
    for (const LinearSpec* linear : block.RoutingLinears()) expect_linear(*linear);
    if (kv_scheme().type != KvScheme::Type::kNone) {
      ReadKvScales(block);  // a few numbers: their absence is better told now
      for (const std::string& name : artifact_->KvTensorsOf(block.attention)) check.Known(name);
    }
  }
  if (spec_.tied) {
    // Some tools store the tied head beside the embedding; it is then a copy nobody reads.
    check.Known(spec_.lm_head.name + ".weight");
  } else {
    expect_linear(spec_.lm_head);
  }
  unknown_tensors_ = check.Unknown();
}

std::optional<QuantScheme> ModelSource::SchemeOf(const LinearSpec& linear) const {
  if (artifact_ == nullptr) return std::nullopt;
  return artifact_->SchemeOf(linear.name);
}

std::string ModelSource::WeightName(const LinearSpec& linear) const {
  const bool tied_head = spec_.tied && linear.name == spec_.lm_head.name;
  return tied_head ? spec_.embedding : linear.name + ".weight";
}

DenseMatrix ModelSource::DenseWeight(const LinearSpec& linear) const {
  const std::string name = WeightName(linear);
  const ConstMatrix weight = checkpoint_->View(name);
  CheckFinite(weight, checkpoint_->Location(name));
  return {weight, linear.transposed};
}

QuantizedLinear ModelSource::ReadQuantized(const LinearSpec& linear) const {
  Check(artifact_ != nullptr, "ReadQuantized: a dense checkpoint");
  QuantizedLinear quantized = artifact_->Read(linear.name);
  if (quantized.out != linear.out || quantized.in != linear.in) {
    throw Error(ErrorCode::kBadInput, checkpoint_->folder().string() + ": " + linear.name,
                "is stored as " + ShapeText({quantized.out, quantized.in}) +
                    ", but config.json asks for " + ShapeText({linear.out, linear.in}));
  }
  return quantized;
}

KvScheme ModelSource::kv_scheme() const {
  return artifact_ == nullptr ? KvScheme{} : artifact_->kv_scheme();
}

KvScales ModelSource::ReadKvScales(const BlockSpec& block) const {
  Check(artifact_ != nullptr, "ReadKvScales: a dense checkpoint");
  return artifact_->ReadKv(block.attention, spec_.kv_heads);
}

Tensor ModelSource::ReadVector(const std::string& name) const {
  const ConstMatrix stored = checkpoint_->View(name);
  CheckFinite(stored, checkpoint_->Location(name));
  Tensor vector = HostTensor(DType::kF32, 1, stored.cols);
  WidenRow(stored, 0, vector.Row<float>(0));
  return vector;
}

void ModelSource::Release(const LinearSpec& linear) const {
  if (SchemeOf(linear)) {
    for (const std::string& name : artifact_->TensorsOf(linear.name)) {
      if (checkpoint_->Has(name)) checkpoint_->Release(name);
    }
    return;
  }
  checkpoint_->Release(WeightName(linear));
}

DType ModelSource::dense_dtype() const {
  // The embedding is dense in every format, and of a type that View knows.
  const TensorInfo& info = checkpoint_->Info(spec_.embedding);
  const std::optional<DType> dtype = info.type();
  return dtype && IsDenseFloat(*dtype) ? *dtype : checkpoint_->View(spec_.embedding).dtype;
}

}  // namespace quantmill
