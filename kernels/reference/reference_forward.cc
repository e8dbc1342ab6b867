// Norms, rotary embedding, activations, attention and scores as the formulas of ops.h say.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/reference_kv.h"

namespace quantmill::reference {
namespace {

void Store(Matrix m, int64_t r, int64_t c, double x) {
  if (m.dtype == DType::kF32) {
    m.Row<float>(r)[c] = static_cast<float>(x);
  } else {
    m.Row<BF16>(r)[c] = ToBF16(static_cast<float>(x));
  }
}

double Apply(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh: {
      // x / 2 (1 + tanh(u)), in the form that does not cancel for large negative u.
      const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return x / (1 + std::exp(-2 * u));
    }
    case Activation::kGelu:
      return x * 0.5 * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kRelu:
      return x < 0 ? 0 : x;
  }
  return 0;
}

class ReferencePlan : public BatchPlan {
 public:
  struct Row {
    size_t sequence = 0;
    int64_t position = 0;
  };

  explicit ReferencePlan(std::span<const SequenceStep> steps) {
    for (const SequenceStep& step : steps) {
      CheckSequenceStep(step, tokens());
      const int64_t end = step.context + step.tokens;
      for (int64_t at = step.context; at < end; ++at) rows_.push_back({tables_.size(), at});
      tables_.emplace_back(step.block_table.begin(), step.block_table.end());
    }
  }
  int64_t tokens() const override { return static_cast<int64_t>(rows_.size()); }
  int64_t position(int64_t row) const override { return rows_[static_cast<size_t>(row)].position; }
  // The physical block that holds a position of the row's sequence.
  int64_t Block(int64_t row, int64_t position) const {
    const std::vector<int32_t>& table = tables_[rows_[static_cast<size_t>(row)].sequence];
    return table[static_cast<size_t>(position / kKvBlockTokens)];
  }

 private:
  std::vector<Row> rows_;
  std::vector<std::vector<int32_t>> tables_;
};

// [layer][block][K or V][kv head][slot][head_dim], decoded values (of kInt4: rotated ones).
class ReferenceKvStore : public KvStore {
 public:
  explicit ReferenceKvStore(const KvShape& shape)
      : shape_(shape),
        values_(static_cast<size_t>(shape.layers * shape.blocks * 2 * shape.kv_heads *
                                    kKvBlockTokens * shape.head_dim),
                std::numeric_limits<float>::quiet_NaN()) {}
  const KvShape& shape() const override { return shape_; }
  int64_t bytes() const override { return KvBlockBytes(shape_) * shape_.blocks; }

  // head_dim values of one slot. part: 0 for K, 1 for V.
  float* Slot(int64_t layer, int64_t block, int part, int64_t head, int64_t slot) {
    return values_.data() + Offset(layer, block, part, head, slot);
  }
  const float* Slot(int64_t layer, int64_t block, int part, int64_t head, int64_t slot) const {
    return values_.data() + Offset(layer, block, part, head, slot);
  }
  int64_t block_values() const { return 2 * shape_.kv_heads * kKvBlockTokens * shape_.head_dim; }

 private:
  int64_t Offset(int64_t layer, int64_t block, int part, int64_t head, int64_t slot) const {
    Check(layer >= 0 && layer < shape_.layers && block >= 0 && block < shape_.blocks,
          "attention: a layer or block outside the store");
    const int64_t heads = (layer * shape_.blocks + block) * 2 + part;
    return ((heads * shape_.kv_heads + head) * kKvBlockTokens + slot) * shape_.head_dim;
  }

  KvShape shape_;
  std::vector<float> values_;
};

const ReferencePlan& PlanOf(const BatchPlan& plan) {
  return static_cast<const ReferencePlan&>(plan);
}

// One row of logits: its score, and log-probabilities.
TokenScore Score(const float* logits, int64_t vocab, int32_t target,
                 std::vector<double>& log_probs) {
  TokenScore score;
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < vocab; ++i) {
    if (logits[i] > max) {
      max = logits[i];
      score.top1 = static_cast<int32_t>(i);
    }
  }
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - max);
  log_probs.resize(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < vocab; ++i) {
    log_probs[static_cast<size_t>(i)] = logits[i] - max - std::log(sum);
  }
  score.log_prob = log_probs[static_cast<size_t>(target)];
  return score;
}

}  // namespace

void ReferenceBackend::Norm(Exec&, ConstMatrix x, const NormParams& params, Matrix out) {
  CheckNorm(x, params, out);
  const auto n = static_cast<double>(x.cols);
  const bool layer = params.kind == NormKind::kLayer;
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.Row<float>(r);
    double mean = 0;
    for (int64_t i = 0; layer && i < x.cols; ++i) mean += row[i] / n;
    double variance = 0;
    for (int64_t i = 0; i < x.cols; ++i) variance += (row[i] - mean) * (row[i] - mean) / n;
    const double scale = 1 / std::sqrt(variance + double{params.eps});
    for (int64_t i = 0; i < x.cols; ++i) {
      const double gain = double{params.gain.Row<float>(0)[i]} + double{params.gain_offset};
      const double bias = params.bias.size() > 0 ? params.bias.Row<float>(0)[i] : 0;
      Store(out, r, i, (row[i] - mean) * scale * gain + bias);
    }
  }
}

void ReferenceBackend::Rope(Exec&, const BatchPlan& plan, const RopeParams& params, Matrix x) {
  CheckRope(plan, params, x);
  const ReferencePlan& batch = PlanOf(plan);
  const int64_t half = params.rotary_dim / 2;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t begin = 0; begin < x.cols; begin += params.head_dim) {
      float* head = x.Row<float>(r) + begin;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(batch.position(r)) *
                            params.inv_freq[static_cast<size_t>(i)];  // rounded, as models do
        const double cos = std::cos(double{angle}) * double{params.amplitude};
        const double sin = std::sin(double{angle}) * double{params.amplitude};
        const double a = head[i];
        const double b = head[half + i];
        head[i] = static_cast<float>(a * cos - b * sin);
        head[half + i] = static_cast<float>(b * cos + a * sin);
      }
    }
  }
}

void ReferenceBackend::GatedActivation(Exec&, Activation activation, ConstMatrix gate,
                                       ConstMatrix up, Matrix out) {
  CheckGatedActivation(gate, up, out);
  for (int64_t r = 0; r < gate.rows; ++r) {
    for (int64_t i = 0; i < gate.cols; ++i) {
      const double y = Apply(activation, gate.Row<float>(r)[i]);
      Store(out, r, i, up.data == nullptr ? y : y * double{up.Row<float>(r)[i]});
    }
  }
}

std::unique_ptr<KvStore> ReferenceBackend::NewKvStore(Exec&, const KvShape& shape) {
  CheckNewKvStore(shape);
  return std::make_unique<ReferenceKvStore>(shape);
}

void ReferenceBackend::CopyKvBlock(Exec&, KvStore& store, int32_t from, int32_t to) {
  CheckCopyKvBlock(store.shape(), from, to);
  auto& kv = static_cast<ReferenceKvStore&>(store);
  for (int64_t layer = 0; layer < kv.shape().layers; ++layer) {
    std::copy_n(kv.Slot(layer, from, 0, 0, 0), kv.block_values(), kv.Slot(layer, to, 0, 0, 0));
  }
}

std::unique_ptr<BatchPlan> ReferenceBackend::PlanBatch(Exec&,
                                                       std::span<const SequenceStep> sequences) {
  return std::make_unique<ReferencePlan>(sequences);
}

void ReferenceBackend::AppendKv(Exec&, const BatchPlan& plan, int64_t layer, ConstMatrix k,
                                ConstMatrix v, KvStore& store) {
  CheckAppendKv(plan, store.shape(), layer, k, v);
  const ReferencePlan& batch = PlanOf(plan);
  auto& kv = static_cast<ReferenceKvStore&>(store);
  const KvShape& shape = kv.shape();
  for (int64_t r = 0; r < k.rows; ++r) {
    const int64_t block = batch.Block(r, batch.position(r));
    const int64_t slot = batch.position(r) % kKvBlockTokens;
    for (int64_t h = 0; h < shape.kv_heads; ++h) {
      for (const int part : {0, 1}) {
        const float* from = (part == 0 ? k : v).Row<float>(r) + h * shape.head_dim;
        float* to = kv.Slot(layer, block, part, h, slot);
        std::copy_n(from, shape.head_dim, to);
        const auto& scales = part == 0 ? shape.key_scales : shape.value_scales;
        const auto head = static_cast<size_t>(layer * shape.kv_heads + h);
        RoundHead(shape, scales.empty() ? 1.0f : scales[head],
                  {to, static_cast<size_t>(shape.head_dim)});
      }
    }
  }
}

void ReferenceBackend::Attention(Exec&, const BatchPlan& plan, int64_t layer,
                                 const AttentionParams& params, ConstMatrix q, const KvStore& store,
                                 Matrix out) {
  CheckAttention(plan, store.shape(), layer, params, q, out);
  const ReferencePlan& batch = PlanOf(plan);
  const auto& kv = static_cast<const ReferenceKvStore&>(store);
  const bool rotated = kv.shape().scheme.type == KvScheme::Type::kInt4;
  std::vector<double> weights;
  for (int64_t r = 0; r < q.rows; ++r) {
    const int64_t position = batch.position(r);
    const int64_t window = params.sliding_window;
    const int64_t first = window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
    const auto slot_of = [&](int64_t p, int part, int64_t head) {
      return kv.Slot(layer, batch.Block(r, p), part, head, p % kKvBlockTokens);
    };
    for (int64_t h = 0; h < params.heads; ++h) {
      const int64_t kv_head = h / (params.heads / params.kv_heads);
      const float* from = q.Row<float>(r) + h * params.head_dim;
      std::vector<double> query(from, from + params.head_dim);
      if (rotated) RotateExactly(query);
      double max = -std::numeric_limits<double>::infinity();
      weights.clear();
      for (int64_t p = first; p <= position; ++p) {
        double dot = 0;
        const float* key = slot_of(p, 0, kv_head);
        for (int64_t d = 0; d < params.head_dim; ++d) {
          dot += query[static_cast<size_t>(d)] * double{key[d]};
        }
        double score = dot * double{params.scale};
        if (params.softcap > 0) score = params.softcap * std::tanh(score / params.softcap);
        if (!params.alibi_slopes.empty()) {
          score -= double{params.alibi_slopes[static_cast<size_t>(h)]} *
                   static_cast<double>(position - p);
        }
        weights.push_back(score);
        max = std::max(max, score);
      }
      double sum = 0;
      for (double& w : weights) sum += (w = std::exp(w - max));
      std::vector<double> y(static_cast<size_t>(params.head_dim));
      for (int64_t p = first; p <= position; ++p) {
        const double weight = weights[static_cast<size_t>(p - first)] / sum;
        const float* value = slot_of(p, 1, kv_head);
        for (size_t d = 0; d < y.size(); ++d) y[d] += weight * double{value[d]};
      }
      if (rotated) RotateExactly(y);
      for (size_t d = 0; d < y.size(); ++d) {
        Store(out, r, h * params.head_dim + static_cast<int64_t>(d), y[d]);
      }
    }
  }
}

void ReferenceBackend::ScoreLogits(Exec&, ConstMatrix logits, std::span<const int32_t> targets,
                                   std::span<TokenScore> scores) {
  CheckScoreLogits(logits, targets, scores);
  std::vector<double> log_probs;
  for (int64_t r = 0; r < logits.rows; ++r) {
    const auto i = static_cast<size_t>(r);
    scores[i] = Score(logits.Row<float>(r), logits.cols, targets[i], log_probs);
  }
}

void ReferenceBackend::CompareLogits(Exec&, ConstMatrix reference, ConstMatrix test,
                                     std::span<const int32_t> targets,
                                     std::span<TokenComparison> scores) {
  CheckCompareLogits(reference, test, targets, scores);
  std::vector<double> p;
  std::vector<double> q;
  for (int64_t r = 0; r < reference.rows; ++r) {
    TokenComparison& score = scores[static_cast<size_t>(r)];
    const int32_t target = targets[static_cast<size_t>(r)];
    score.reference = Score(reference.Row<float>(r), reference.cols, target, p);
    score.test = Score(test.Row<float>(r), test.cols, target, q);
    score.kl = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double probability = std::exp(p[i]);
      if (probability == 0) continue;  // 0 log 0 = 0
      score.kl += probability * (p[i] - q[i]);
    }
  }
}

void ReferenceBackend::SoftCap(Exec&, float cap, Matrix logits) {
  CheckSoftCap(cap, logits);
  for (int64_t r = 0; r < logits.rows; ++r) {
    float* row = logits.Row<float>(r);
    for (int64_t i = 0; i < logits.cols; ++i) {
      row[i] = static_cast<float>(double{cap} * std::tanh(double{row[i]} / double{cap}));
    }
  }
}

}  // namespace quantmill::reference
