// quantmill inspect: what a checkpoint or artifact holds.
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"
#include "quant/model/model_source.h"
#include "quant/runtime/kv_precision.h"
#include "tools/command.h"
#include "tools/weights.h"

namespace quantmill {
namespace {

// Collects tensors into groups of one purpose and one type, in the order of their first member.
class Grouping {
 public:
  explicit Grouping(const ModelSource& source) : source_(source) {}

  // A tensor as it lies in the file; one that is not there is passed over.
  void AddTensor(const std::string& what, const std::string& name) {
    const Checkpoint& checkpoint = source_.checkpoint();
    if (name.empty() || !checkpoint.Has(name)) return;
    const StoredTensor stored = checkpoint.Stored(name);
    Add(what, stored.type, 1, stored.bytes, checkpoint.Info(name).elements());
  }

  void AddLinear(const std::string& what, const LinearSpec& linear) {
    if (const auto scheme = source_.SchemeOf(linear)) {
      const std::vector<std::string> tensors = source_.artifact()->TensorsOf(linear.name);
      uint64_t bytes = 0;
      for (const std::string& name : tensors) bytes += source_.checkpoint().Stored(name).bytes;
      const int64_t weights = linear.out * linear.in;
      Add(what, Describe(*scheme), static_cast<int64_t>(tensors.size()), bytes, weights);
      quantized_bytes_ += bytes;
      quantized_weights_ += weights;
    } else {
      const std::string weight = source_.WeightName(linear);
      AddTensor(what, weight);
      CountBlocks(weight);
    }
    AddTensor("biases", linear.name + ".bias");
  }

  const std::vector<InspectedTensorGroup>& groups() const { return groups_; }
  // Of quantized linears; 0 if there are none.
  double BitsPerWeight() const {
    if (quantized_weights_ == 0) return 0;
    return 8.0 * static_cast<double>(quantized_bytes_) / static_cast<double>(quantized_weights_);
  }

 private:
  // Of GGUF types that no scheme says (Q4_K and so on): as the file holds them.
  void CountBlocks(const std::string& weight) {
    const Checkpoint& checkpoint = source_.checkpoint();
    if (!checkpoint.is_image()) return;
    const StoredTensor stored = checkpoint.Stored(weight);
    if (DTypeFromName(stored.type)) return;
    quantized_bytes_ += stored.bytes;
    quantized_weights_ += checkpoint.Info(weight).elements();
  }

  void Add(const std::string& what, const std::string& dtype, int64_t tensors, uint64_t bytes,
           int64_t parameters) {
    InspectedTensorGroup* group = nullptr;
    for (InspectedTensorGroup& known : groups_) {
      if (known.what == what && known.dtype == dtype) group = &known;
    }
    if (group == nullptr) group = &groups_.emplace_back(InspectedTensorGroup{what, dtype, 0, 0, 0});
    group->tensors += tensors;
    group->bytes += bytes;
    group->parameters += parameters;
  }

  const ModelSource& source_;
  std::vector<InspectedTensorGroup> groups_;
  uint64_t quantized_bytes_ = 0;
  int64_t quantized_weights_ = 0;
};

void AddGroups(const ModelSource& source, InspectReport& report) {
  const DecoderSpec& spec = source.spec();
  Grouping grouping(source);
  grouping.AddTensor(spec.tied ? "embedding and head" : "embedding", spec.embedding);
  grouping.AddTensor("positions", spec.position_embedding);
  for (const LinearSpec* linear : spec.Projections()) grouping.AddLinear("projections", *linear);
  for (const BlockSpec& block : spec.blocks) {
    for (const Site site : {Site::kAttentionIn, Site::kAttentionOut}) {
      for (const LinearSpec* linear : block.LinearsAt(site)) {
        grouping.AddLinear("attention", *linear);
      }
    }
    const bool mixture = block.is_mixture();
    for (const SharedInput& input : block.SharedInputs()) {
      if (input.site != Site::kMlpIn && input.site != Site::kMlpOut) continue;
      for (const LinearSpec* linear : block.LinearsAt(input)) {
        grouping.AddLinear(mixture ? "experts" : "mlp", *linear);
      }
    }
    for (const LinearSpec* linear : block.RoutingLinears()) grouping.AddLinear("routing", *linear);
    std::set<std::string> norms = {
        block.attention_norm,      block.attention_norm_bias, block.mlp_norm,   block.mlp_norm_bias,
        block.attention_post_norm, block.mlp_post_norm,       block.query_norm, block.key_norm};
    for (const std::string& norm : norms) grouping.AddTensor("norms", norm);
  }
  for (const std::string* norm :
       {&spec.embedding_norm, &spec.embedding_norm_bias, &spec.final_norm, &spec.final_norm_bias}) {
    grouping.AddTensor("norms", *norm);
  }
  if (!spec.tied) grouping.AddLinear("head", spec.lm_head);
  for (const std::string& name : source.unknown_tensors()) grouping.AddTensor("unknown", name);
  report.groups = grouping.groups();
  report.bits_per_weight = grouping.BitsPerWeight();
  for (const InspectedTensorGroup& group : report.groups) report.parameters += group.parameters;
}

InspectReport Inspect(const ModelSource& source) {
  const DecoderSpec& spec = source.spec();
  InspectReport report;
  report.path = source.path();
  report.architecture = spec.architecture;
  report.format = DescribeWeights(source);
  report.layers = spec.layers();
  report.hidden = spec.hidden;
  report.ffn = spec.ffn;
  report.heads = spec.heads;
  report.kv_heads = spec.kv_heads;
  report.head_dim = spec.head_dim;
  report.vocab = spec.vocab;
  report.max_positions = spec.max_positions;
  report.tied = spec.tied;
  report.kv_cache = Describe(KvPrecisionNamed("auto", source), source);
  report.bytes = WeightFileBytes(source);
  for (const std::filesystem::path& file : source.checkpoint().weight_files()) {
    report.files.push_back(file.filename().string());
  }
  report.unknown_tensors = source.unknown_tensors();
  AddGroups(source, report);
  return report;
}

class InspectCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "inspect", "what a checkpoint or artifact holds");
    command.Add("MODEL", model_, "folder, GGUF file, or hub id in the local cache")
        .Required()
        .ValueName("");
    AddCommonFlags(command);
    command.Footer(
        "Example: the layers, types and sizes of the bundled model\n"
        "  quantmill inspect calib_data/sample_model");
    return command;
  }

  int Run(Console& console) override {
    console.WriteReport(Inspect(ModelSource::Open(model_)));
    return 0;
  }

 private:
  std::string model_;
};

}  // namespace

std::unique_ptr<Command> MakeInspectCommand() { return std::make_unique<InspectCommand>(); }

}  // namespace quantmill
