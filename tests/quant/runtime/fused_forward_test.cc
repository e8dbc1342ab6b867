// A block whose projections are stored as one computes what it does with them apart.
#include <gtest/gtest.h>

#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

// The block of `source` with its projections fused, and the weights that go with it.
class FusedBlock {
 public:
  FusedBlock(BackendRun& run, const ModelSource& source, const BlockSpec& apart, int64_t groups)
      : run_(run), source_(source), spec_(apart) {
    spec_.FuseQueryKeyValue("qkv", groups);
    spec_.FuseGateUp("gate_up");
    weights_ = LoadBlock(run.backend(), run.exec(), source, apart, Compute::kF32);
    std::vector<LinearWeights> linears(4);
    linears[0] = Fuse(
        spec_.query_key_value,
        {{&apart.query, &spec_.query}, {&apart.key, &spec_.key}, {&apart.value, &spec_.value}});
    linears[1] = std::move(weights_.linears[3]);
    linears[2] = Fuse(spec_.gate_up, {{&apart.gate, &spec_.gate}, {&apart.up, &spec_.up}});
    linears[3] = std::move(weights_.linears[6]);
    weights_.linears = std::move(linears);
  }

  const BlockSpec& spec() const { return spec_; }
  const BlockWeights& weights() const { return weights_; }

 private:
  struct Part {
    const LinearSpec* apart;
    const LinearSpec* fused;
  };

  LinearWeights Fuse(const LinearSpec& whole, const std::vector<Part>& parts) {
    const Tensor weight = HostTensor(DType::kF32, whole.out, whole.in);
    const Tensor bias = HostTensor(DType::kF32, 1, whole.out);
    for (const auto& [apart, fused] : parts) {
      const RowRuns rows = spec_.Stored(*fused).rows;
      for (int64_t i = 0; i < apart->out; ++i) {
        WidenRow(source_.DenseWeight(*apart).view(), i, weight.Row<float>(rows.Row(i)));
        if (!apart->bias) continue;
        bias.Row<float>(0)[rows.Row(i)] =
            source_.ReadVector(apart->name + ".bias").Row<float>(0)[i];
      }
    }
    return {run_.backend().PackDense(run_.exec(), weight, Compute::kF32),
            whole.bias ? run_.OnDevice(bias) : Tensor()};
  }

  BackendRun& run_;
  const ModelSource& source_;
  BlockSpec spec_;
  BlockWeights weights_;
};

std::vector<float> Output(BackendRun& run, const ModelSource& source, const BlockSpec& block,
                          const BlockWeights& weights) {
  const DecoderSpec& spec = source.spec();
  std::vector<int32_t> ids(37);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * i + 5 * i) % 96);
  const auto tokens = std::ssize(ids);
  Tensor residual = run.Empty(DType::kF32, tokens, spec.hidden);
  KvCache cache(run.backend(), run.exec(), {1, 4, spec.kv_heads, spec.head_dim});
  KvSequence sequence(cache);
  const SequenceStep step = sequence.Append(tokens, 0);
  const auto plan = run.backend().PlanBatch(run.exec(), {&step, 1});
  Embedding(run.backend(), run.exec(), source, Compute::kF32).Run(*plan, ids, residual);
  BlockForward forward(run.backend(), run.exec(), spec, Compute::kF32);
  forward.Run(block, weights, {*plan, 0, cache.store()}, residual);
  std::vector<float> out(static_cast<size_t>(tokens * spec.hidden));
  run.backend().Download(run.exec(), residual, MutableViewOf(out.data(), tokens, spec.hidden));
  return out;
}

class FusedForward : public BackendTest {};

// Rows are summed alike wherever they lie, so not a bit may differ. One group: q, k, v whole
// (GPT-2, Phi-3); one for each key-value head (Falcon, GPT-NeoX).
TEST_P(FusedForward, EqualsTheSameLinearsApart) {
  for (const char* name : {"llama_gqa", "qwen2", "qwen3"}) {
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    const BlockSpec& apart = source.spec().blocks.front();
    const std::vector<float> expected =
        Output(tested(), source, apart, LoadBlock(backend(), exec(), source, apart, Compute::kF32));
    for (const int64_t groups : {int64_t{1}, source.spec().kv_heads}) {
      const FusedBlock fused(tested(), source, apart, groups);
      EXPECT_EQ(Output(tested(), source, fused.spec(), fused.weights()), expected)
          << name << ", " << groups << " groups";
    }
  }
}

QUANTMILL_ALL_BACKENDS(FusedForward);

}  // namespace
}  // namespace quantmill::test
