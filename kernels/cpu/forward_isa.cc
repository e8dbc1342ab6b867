// Norms, rotary embedding, activations and logit statistics, one row at a time.
#include "kernels/cpu/forward_kernels.h"
#include "kernels/cpu/simd_math.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

constexpr int kAccumulators = 4;  // hide the latency of an addition

// The first n lanes from memory, `fill` in the others.
inline Vec LoadPartOr(const float* p, int64_t n, float fill) {
  float all[kLanes];
  for (float& x : all) x = fill;
  std::memcpy(all, p, static_cast<size_t>(n) * sizeof(float));
  return Load(all);
}

inline Vec Abs(Vec x) { return FastMax(-x, x); }

// ---- norm ----

// sum of term(x) over a row: lanes of four accumulators, added up as a tree.
template <typename Term>
float SumRow(const float* x, int64_t n, Term term) {
  constexpr int64_t kStep = kAccumulators * kLanes;
  Vec acc[kAccumulators] = {};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
#pragma GCC unroll 4
    for (int a = 0; a < kAccumulators; ++a) acc[a] = term(acc[a], Load(x + i + a * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) acc[0] = term(acc[0], Load(x + i));
  float sum = ReduceSum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  if (i < n) {
    // The last lanes by themselves: a padding element would not be a term of 0.
    float tail[kLanes] = {};
    StorePart(tail, term(Zero(), LoadPart(x + i, n - i)), n - i);
    sum += ReduceSum(Load(tail));
  }
  return sum;
}

template <typename T>
void Norm(const NormRow& row, T* out) {
  const int64_t n = row.features;
  const auto count = static_cast<double>(n);
  float mean = 0;
  if (row.center) {
    const float sum = SumRow(row.x, n, [](Vec acc, Vec x) { return acc + x; });
    mean = static_cast<float>(static_cast<double>(sum) / count);
  }
  const Vec center = Set1(mean);
  const float squares = SumRow(row.x, n, [center](Vec acc, Vec x) {
    const Vec d = x - center;
    return Fma(d, d, acc);
  });
  const double variance = static_cast<double>(squares) / count;
  const Vec scale =
      Set1(static_cast<float>(1.0 / __builtin_sqrt(variance + static_cast<double>(row.eps))));
  const Vec offset = Set1(row.gain_offset);
  const auto apply = [&](Vec x, Vec gain) { return (x - center) * scale * (gain + offset); };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Vec y = apply(Load(row.x + i), Load(row.gain + i));
    if (row.bias != nullptr) y += Load(row.bias + i);
    StoreAs(out + i, y);
  }
  if (const int64_t rest = n - i; rest > 0) {
    Vec y = apply(LoadPart(row.x + i, rest), LoadPart(row.gain + i, rest));
    if (row.bias != nullptr) y += LoadPart(row.bias + i, rest);
    StorePartAs(out + i, y, rest);
  }
}

// ---- rope ----

void Rope(const float* table, int64_t half, int64_t heads, int64_t head_dim, float* x) {
  const float* cos = table;
  const float* sin = table + half;
  for (int64_t h = 0; h < heads; ++h) {
    float* low = x + h * head_dim;
    float* high = low + half;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const Vec a = Load(low + i);
      const Vec b = Load(high + i);
      const Vec c = Load(cos + i);
      const Vec s = Load(sin + i);
      Store(low + i, Fnma(b, s, a * c));
      Store(high + i, Fma(a, s, b * c));
    }
    if (const int64_t rest = half - i; rest > 0) {
      const Vec a = LoadPart(low + i, rest);
      const Vec b = LoadPart(high + i, rest);
      const Vec c = LoadPart(cos + i, rest);
      const Vec s = LoadPart(sin + i, rest);
      StorePart(low + i, Fnma(b, s, a * c), rest);
      StorePart(high + i, Fma(a, s, b * c), rest);
    }
  }
}

// ---- activations ----

struct Silu {
  static Vec Apply(Vec x) { return x / (1.0f + Exp(-x)); }
};

// x/2 (1 + tanh(u)) = x / (1 + e^(-2u)), which does not cancel where tanh is near -1.
struct GeluTanh {
  static Vec Apply(Vec x) {
    const Vec s = x * x;
    const Vec inner = Fma(s, Set1(0.044715f), Set1(1.0f));
    const Vec minus_2u = x * inner * Set1(-1.5957691216057308f);  // -2 sqrt(2 / pi)
    return x / (1.0f + Exp(minus_2u));
  }
};

// x Phi(x), Phi(-|x|) = erfc(|x| / sqrt(2)) / 2. erfc(z) = t e^(P(t) - z^2), t = 1 / (1 + z / 2),
// relative error 1.2e-7 for z >= 0 (Numerical Recipes, erfcc). z^2 = x^2 / 2 directly: rounding z
// first would double its error.
struct Gelu {
  static Vec Apply(Vec x) {
    const Vec t = 1.0f / Fma(Abs(x), Set1(0.35355339059327373f), Set1(1.0f));
    Vec p = Set1(0.17087277f);
    p = Fma(p, t, Set1(-0.82215223f));
    p = Fma(p, t, Set1(1.48851587f));
    p = Fma(p, t, Set1(-1.13520398f));
    p = Fma(p, t, Set1(0.27886807f));
    p = Fma(p, t, Set1(-0.18628806f));
    p = Fma(p, t, Set1(0.09678418f));
    p = Fma(p, t, Set1(0.37409196f));
    p = Fma(p, t, Set1(1.00002368f));
    p = Fma(p, t, Set1(-1.26551223f));
    const Vec half_square = x * 0.5f * x;
    const Vec tail = 0.5f * t * Exp(p - half_square);
    return x * (x < 0.0f ? tail : 1.0f - tail);
  }
};

struct Relu {
  static Vec Apply(Vec x) { return x < 0.0f ? Zero() : x; }  // NaN stays
};

template <typename F, typename T>
void Activate(const float* gate, const float* up, int64_t n, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec y = F::Apply(Load(gate + i));
    StoreAs(out + i, up == nullptr ? y : y * Load(up + i));
  }
  if (const int64_t rest = n - i; rest > 0) {
    const Vec y = F::Apply(LoadPart(gate + i, rest));
    StorePartAs(out + i, up == nullptr ? y : y * LoadPart(up + i, rest), rest);
  }
}

void SoftCap(float cap, int64_t n, float* x) {
  const Vec c = Set1(cap);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(x + i, c * Tanh(Load(x + i) / c));
  if (i < n) StorePart(x + i, c * Tanh(LoadPart(x + i, n - i) / c), n - i);
}

// ---- logits ----

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kChunkVecs = 16 * kAccumulators;  // summed in F32; chunks are summed in F64

// Sum over a row of term(i, part): the vector of elements i, i + 1, ..., of which `part` are real.
template <typename Term>
double SumVectors(int64_t n, Term term) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kChunkVecs * kLanes) {
    Vec acc[kAccumulators] = {};
    if (begin + kChunkVecs * kLanes <= n) {
      for (int64_t v = 0; v < kChunkVecs; v += kAccumulators) {
#pragma GCC unroll 4
        for (int a = 0; a < kAccumulators; ++a) {
          acc[a] += term(begin + (v + a) * kLanes, int64_t{kLanes});
        }
      }
    } else {
      for (int64_t i = begin; i < n; i += kLanes) {
        acc[0] += term(i, n - i < kLanes ? n - i : int64_t{kLanes});
      }
    }
    float lanes[kLanes];
    Store(lanes, (acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

// Missing elements count as -infinity: never the maximum, and 0 in every sum.
inline Vec LoadLogits(const float* x, int64_t part) {
  return part == kLanes ? Load(x) : LoadPartOr(x, part, -kInfinity);
}

LogitStats ArgMax(const float* x, int64_t n) {
  Vec best[kAccumulators];
  VecInt at[kAccumulators];
  for (int a = 0; a < kAccumulators; ++a) {
    best[a] = Set1(-kInfinity);
    at[a] = VecInt{};
  }
  VecInt index = LaneIndex();
  const auto take = [&](int a, Vec v) {
    const auto better = v > best[a];
    best[a] = better ? v : best[a];
    at[a] = better ? index : at[a];
    index += kLanes;
  };
  int64_t i = 0;
  for (; i + kAccumulators * kLanes <= n; i += kAccumulators * kLanes) {
#pragma GCC unroll 4
    for (int a = 0; a < kAccumulators; ++a) take(a, Load(x + i + a * kLanes));
  }
  for (; i < n; i += kLanes) take(0, LoadLogits(x + i, n - i < kLanes ? n - i : int64_t{kLanes}));
  LogitStats stats{.max = -kInfinity, .argmax = 0, .sum = 0};
  for (int a = 0; a < kAccumulators; ++a) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = best[a][lane];
      const bool lower = value == stats.max && at[a][lane] < stats.argmax;
      if (value > stats.max || lower) {
        stats.max = value;
        stats.argmax = at[a][lane];
      }
    }
  }
  return stats;
}

LogitStats Stats(const float* x, int64_t n) {
  LogitStats stats = ArgMax(x, n);
  const Vec max = Set1(stats.max);
  stats.sum =
      SumVectors(n, [&](int64_t i, int64_t part) { return Exp(LoadLogits(x + i, part) - max); });
  return stats;
}

// Sums p (e^u - 1 - u), u = log q - log p, for p the reference and q the test: since p and q sum to
// 1, that is KL. Every term is >= 0, so a small divergence does not drown in rounding as it would
// in sum p (log p - log q), and an error of `shift` cancels to first order. Where u is not small,
// a term is q - p - p u. Where p is 0 it is q (0 log 0 = 0), also if both logits are -infinity.
double Divergence(const float* reference, const LogitStats& reference_stats, const float* test,
                  const LogitStats& test_stats, double shift, int64_t n) {
  const Vec max_p = Set1(reference_stats.max);
  const Vec max_q = Set1(test_stats.max);
  const Vec scale_p = Set1(static_cast<float>(1.0 / reference_stats.sum));
  const Vec scale_q = Set1(static_cast<float>(1.0 / test_stats.sum));
  const Vec log_shift = Set1(static_cast<float>(shift));
  return SumVectors(n, [&](int64_t i, int64_t part) {
    const Vec r = LoadLogits(reference + i, part);
    const Vec t = LoadLogits(test + i, part);
    const Vec p = Exp(r - max_p) * scale_p;
    const Vec q = Exp(t - max_q) * scale_q;
    const Vec u = (t - r) - log_shift;
    Vec series = Set1(1.0f / 40320);
    series = Fma(series, u, Set1(1.0f / 5040));
    series = Fma(series, u, Set1(1.0f / 720));
    series = Fma(series, u, Set1(1.0f / 120));
    series = Fma(series, u, Set1(1.0f / 24));
    series = Fma(series, u, Set1(1.0f / 6));
    series = Fma(series, u, Set1(0.5f));
    const Vec small = p * u * u * series;
    const Vec large = Fnma(p, u, q - p);
    const Vec term = Abs(u) < 0.5f ? small : large;
    return p == 0.0f ? q : term;
  });
}

}  // namespace

const ForwardKernels kForwardKernels = {
    .norm_f32 = Norm<float>,
    .norm_bf16 = Norm<uint16_t>,
    .rope = Rope,
    .activation_f32 = {Activate<Silu, float>, Activate<GeluTanh, float>, Activate<Gelu, float>,
                       Activate<Relu, float>},
    .activation_bf16 = {Activate<Silu, uint16_t>, Activate<GeluTanh, uint16_t>,
                        Activate<Gelu, uint16_t>, Activate<Relu, uint16_t>},
    .soft_cap = SoftCap,
    .logit_stats = Stats,
    .divergence = Divergence};

}  // namespace quantmill::cpu::QUANTMILL_ISA
