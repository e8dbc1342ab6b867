// Stores of rounded keys and values (KvScheme), on every backend.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tests/support/attention_batch.h"

namespace quantmill::test {
namespace {

using Type = KvScheme::Type;

constexpr Type kTypes[] = {Type::kFp8, Type::kInt8, Type::kInt4};

std::string NameOf(Type type) {
  return type == Type::kFp8 ? "fp8" : type == Type::kInt8 ? "int8" : "int4";
}

// ---- the contract of ops.h again, written down independently ----

void Hadamard(std::span<float> x) {
  for (size_t half = 1; half < x.size(); half *= 2) {
    for (size_t i = 0; i < x.size(); i += 2 * half) {
      for (size_t j = i; j < i + half; ++j) {
        const float a = x[j];
        const float b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  for (float& value : x) value *= 1.0f / std::sqrt(static_cast<float>(x.size()));
}

void Decode(Type type, float scale, std::span<float> x) {
  if (type == Type::kFp8) {
    for (float& value : x) value = FromE4M3(ToE4M3(value / scale)) * scale;
    return;
  }
  if (type == Type::kInt4) Hadamard(x);
  float absmax = 0;
  for (const float value : x) absmax = std::max(absmax, std::fabs(value));
  const float limit = type == Type::kInt4 ? 7 : 127;
  for (float& value : x) {
    value = absmax == 0 ? 0 : std::nearbyint(value * (limit / absmax)) * (absmax / limit);
  }
}

float ScaleOf(const std::vector<float>& scales, int64_t head) {
  return scales.empty() ? 1.0f : scales[static_cast<size_t>(head)];
}

// The same batch with decoded keys and values in a store of floats. For kInt4 all of it is rotated,
// the queries too (in double, rounded once); its outputs are then those of the batch, rotated.
Batch Decoded(const Batch& batch) {
  Batch decoded = MakeBatch(0, batch.params, batch.lengths);
  const int64_t dim = batch.params.head_dim;
  const auto size = static_cast<size_t>(dim);
  for (int64_t r = 0; r < batch.tokens(); ++r) {
    std::copy_n(batch.q.Row<float>(r), batch.q.cols(), decoded.q.Row<float>(r));
    std::copy_n(batch.k.Row<float>(r), batch.k.cols(), decoded.k.Row<float>(r));
    std::copy_n(batch.v.Row<float>(r), batch.v.cols(), decoded.v.Row<float>(r));
    for (int64_t h = 0; h < batch.params.kv_heads; ++h) {
      Decode(batch.kv.type, ScaleOf(batch.key_scales, h),
             {decoded.k.Row<float>(r) + h * dim, size});
      Decode(batch.kv.type, ScaleOf(batch.value_scales, h),
             {decoded.v.Row<float>(r) + h * dim, size});
    }
    for (int64_t h = 0; h < batch.params.heads && batch.kv.type == Type::kInt4; ++h) {
      const float* from = batch.q.Row<float>(r) + h * dim;
      for (size_t i = 0; i < size; ++i) {
        double sum = 0;
        for (size_t j = 0; j < size; ++j) {
          sum += std::popcount(i & j) % 2 == 0 ? double{from[j]} : -double{from[j]};
        }
        decoded.q.Row<float>(r)[h * dim + static_cast<int64_t>(i)] =
            static_cast<float>(sum / std::sqrt(static_cast<double>(dim)));
      }
    }
  }
  return decoded;
}

// What the outputs of a rotated batch may differ by: the bound of the decoded one; a rotation of
// the queries rounds log2(dim) + 2 times, which moves a score by that much of |q| |k| in the worst
// case (Cauchy-Schwarz: the norms, which rotations keep), hence all weights; and the rotation back
// mixes the errors of a head.
Tensor RotatedBounds(const Batch& batch, const Batch& decoded) {
  constexpr double kU = 0x1p-24;
  const Tensor inner = Bounds(decoded);
  Tensor bounds = HostTensor(DType::kF64, inner.rows(), inner.cols());
  const int64_t dim = batch.params.head_dim;
  const double roundings = std::log2(static_cast<double>(dim)) + 3;
  const auto largest = [&](const Tensor& m) {
    double norm = 0;
    for (int64_t r = 0; r < m.rows(); ++r) {
      for (int64_t begin = 0; begin < m.cols(); begin += dim) {
        double sum = 0;
        for (int64_t d = 0; d < dim; ++d) sum += std::pow(double{m.Row<float>(r)[begin + d]}, 2);
        norm = std::max(norm, std::sqrt(sum));
      }
    }
    return norm;
  };
  const double root = std::sqrt(static_cast<double>(dim));
  const double score_error =
      roundings * kU * root * largest(decoded.q) * largest(decoded.k) * double{batch.params.scale};
  const double value = largest(decoded.v);
  for (int64_t r = 0; r < inner.rows(); ++r) {
    for (int64_t begin = 0; begin < inner.cols(); begin += dim) {
      double sum = 0;
      for (int64_t d = 0; d < dim; ++d) sum += inner.Row<double>(r)[begin + d];
      const double moved = 2 * 1.01 * score_error * value;
      const double error = sum / root + root * (moved + roundings * kU * value);
      for (int64_t d = 0; d < dim; ++d) bounds.Row<double>(r)[begin + d] = error;
    }
  }
  return bounds;
}

// Rotates each head of outputs back, in double.
void RotateBack(const Tensor& out, int64_t dim) {
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t begin = 0; begin < out.cols(); begin += dim) {
      std::vector<double> turned(static_cast<size_t>(dim));
      for (int64_t i = 0; i < dim; ++i) {
        for (int64_t j = 0; j < dim; ++j) {
          const double x = out.Row<float>(r)[begin + j];
          turned[static_cast<size_t>(i)] +=
              std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? x : -x;
        }
      }
      for (int64_t i = 0; i < dim; ++i) {
        out.Row<float>(r)[begin + i] = static_cast<float>(turned[static_cast<size_t>(i)] /
                                                          std::sqrt(static_cast<double>(dim)));
      }
    }
  }
}

class KvStoreTest : public BackendTest {
 protected:
  Tensor Run(const Batch& batch, const Schedule& schedule) {
    const auto store = NewStore(backend(), exec(), batch);
    Poison(backend(), exec(), *store);
    return RunOn(backend(), exec(), batch, schedule, *store);
  }
  // On floats, by the reference.
  Tensor Wanted(const Batch& decoded) {
    const auto store = NewStore(reference(), reference_exec(), decoded);
    return RunOn(reference(), reference_exec(), decoded, AtOnce(decoded), *store);
  }
  static Batch Coded(uint64_t seed, Type type, const AttentionParams& params,
                     std::vector<int64_t> lengths) {
    Batch batch = MakeBatch(seed, params, std::move(lengths));
    batch.kv.type = type;
    if (type != Type::kFp8) return batch;
    for (int64_t h = 0; h < params.kv_heads; ++h) {
      batch.key_scales.push_back(0.01f + 0.003f * static_cast<float>(h));
      batch.value_scales.push_back(0.02f);
    }
    return batch;
  }
  // The tested backend and the reference's own store, both against decoded floats.
  void ExpectMatchesDecoded(const Batch& batch) {
    const Batch decoded = Decoded(batch);
    const bool rotated = batch.kv.type == Type::kInt4;
    const Tensor bounds = rotated ? RotatedBounds(batch, decoded) : Bounds(decoded);
    const Tensor want = Wanted(decoded);
    if (rotated) RotateBack(want, batch.params.head_dim);
    const auto bound = [&](int64_t r, int64_t c, double) { return bounds.Row<double>(r)[c]; };
    EXPECT_TRUE(Within(Run(batch, AtOnce(batch)), want, bound));
    const auto store = NewStore(reference(), reference_exec(), batch);
    EXPECT_TRUE(
        Within(RunOn(reference(), reference_exec(), batch, AtOnce(batch), *store), want, bound));
  }
};

TEST_P(KvStoreTest, MatchesDecodedFloats) {
  for (const Type type : kTypes) {
    for (const int64_t head_dim : {1, 2, 8, 16, 20, 64, 80, 128}) {
      if (UnsupportedKv(type, head_dim)) continue;
      SCOPED_TRACE(NameOf(type) + ", head_dim " + std::to_string(head_dim));
      ExpectMatchesDecoded(
          Coded(static_cast<uint64_t>(head_dim), type, Heads(6, 2, head_dim), {0, 1, 17, 64, 90}));
    }
    AttentionParams params = Heads(4, 1, 64);
    params.sliding_window = 20;
    ExpectMatchesDecoded(Coded(7, type, params, {70}));
  }
}

TEST_P(KvStoreTest, LongHeads) {
  for (const Type type : kTypes) {
    for (const int64_t head_dim : {256, 512, 1024}) {
      SCOPED_TRACE(NameOf(type) + ", head_dim " + std::to_string(head_dim));
      ExpectMatchesDecoded(Coded(3, type, Heads(2, 1, head_dim), {1, 19}));
    }
  }
}

// A token that sees itself alone gives back its own value: decoded, exactly (rotated back, nearly).
TEST_P(KvStoreTest, DecodedValuesAreExact) {
  for (const Type type : kTypes) {
    AttentionParams params = Heads(2, 2, 32);
    params.sliding_window = 1;
    Batch batch = Coded(3, type, params, {40});
    batch.v.Row<float>(5)[3] = 1e4f;  // past the largest E4M3 number times its scale
    Fill(batch.v.view().Rows(6, 1), 0);
    const Tensor got = Run(batch, AtOnce(batch));
    const Batch decoded = Decoded(batch);
    const Tensor& want = decoded.v;
    if (type == Type::kInt4) RotateBack(want, 32);
    const Bound bound = [&](int64_t r, int64_t, double) {
      return type == Type::kInt4 ? (r == 5 ? 1e4 : 8.0) * 0x1p-20 : 0.0;
    };
    EXPECT_TRUE(Within(got, want, bound)) << NameOf(type);
  }
}

// By hand: absmax 6.35 has scale 0.05.
TEST_P(KvStoreTest, Int8ByHand) {
  Batch batch = MakeBatch(1, Heads(1, 1, 4), {1});
  batch.kv.type = Type::kInt8;
  const float values[] = {6.35f, -0.12f, 0.13f, -6.35f};
  std::copy_n(values, 4, batch.v.Row<float>(0));
  const Tensor got = Run(batch, AtOnce(batch));
  const double want[] = {6.35, -0.1, 0.15, -6.35};  // codes 127, -2, 3, -127
  for (int64_t d = 0; d < 4; ++d) EXPECT_NEAR(got.Row<float>(0)[d], want[d], 1e-6);
}

// One large element spreads over the head before it is rounded to 4 bits.
TEST_P(KvStoreTest, RotationTamesAnOutlier) {
  AttentionParams params = Heads(1, 1, 64);
  params.sliding_window = 1;
  Batch batch = MakeBatch(2, params, {1});
  for (int64_t d = 0; d < 64; ++d) batch.v.Row<float>(0)[d] = d == 9 ? 20 : (d % 2 == 0 ? 1 : -1);
  batch.kv.type = Type::kInt4;
  const Tensor got = Run(batch, AtOnce(batch));
  double error = 0;
  for (int64_t d = 0; d < 64; ++d) {
    error += std::pow(got.Row<float>(0)[d] - batch.v.Row<float>(0)[d], 2);
  }
  // Without the rotation the step is 20 / 7: every +-1 becomes 0, an error of 63.
  EXPECT_LT(error, 30);
  EXPECT_GT(error, 0.1);
}

TEST_P(KvStoreTest, ChunkingAndThreadsDoNotChangeBits) {
  for (const Type type : kTypes) {
    const Batch batch = Coded(11, type, Heads(9, 3, 32), {1, 17, 131, 0, 64});
    const Tensor want = Run(batch, AtOnce(batch));
    EXPECT_TRUE(SameBits(Run(batch, TokenByToken(batch)), want)) << NameOf(type);
    for (const int64_t longest : {3, 16, 70}) {
      EXPECT_TRUE(SameBits(Run(batch, RandomChunks(batch, 4, longest)), want)) << NameOf(type);
    }
    for (const int threads : {1, 3}) {
      const auto other = WithThreads(threads);
      const auto store = NewStore(other->backend(), other->exec(), batch);
      EXPECT_TRUE(
          SameBits(RunOn(other->backend(), other->exec(), batch, AtOnce(batch), *store), want));
    }
  }
}

TEST_P(KvStoreTest, CopiedBlockHoldsItsScales) {
  for (const Type type : kTypes) {
    Batch both = Coded(13, type, Heads(4, 2, 32), {20, 20});
    for (Tensor Batch::*m : {&Batch::q, &Batch::k, &Batch::v}) {
      std::copy_n((both.*m).Row<float>(0), 20 * (both.*m).cols(), (both.*m).Row<float>(20));
    }
    const Tensor want = Run(both, AtOnce(both));
    const auto store = NewStore(backend(), exec(), both);
    Poison(backend(), exec(), *store);
    RunOn(backend(), exec(), both, {{19, 0}}, *store);
    for (const size_t block : {size_t{0}, size_t{1}}) {
      backend().CopyKvBlock(exec(), *store, both.tables[0][block], both.tables[1][block]);
    }
    const SequenceStep step{0, 1, 19, both.tables[1]};
    const auto plan = backend().PlanBatch(exec(), {&step, 1});
    const auto last = [&](const Tensor& m) { return OnDevice(m.view().Rows(39, 1)); };
    backend().AppendKv(exec(), *plan, 0, last(both.k), last(both.v), *store);
    const Tensor out = Empty(DType::kF32, 1, both.q.cols());
    backend().Attention(exec(), *plan, 0, both.params, last(both.q), *store, out);
    EXPECT_TRUE(SameBits(OnHost(out), want.view().Rows(39, 1))) << NameOf(type);
  }
}

TEST_P(KvStoreTest, NaNReachesOnlyTokensThatSeeIt) {
  for (const Type type : kTypes) {
    Batch batch = Coded(17, type, Heads(2, 2, 32), {60});
    const Tensor clean = Run(batch, AtOnce(batch));
    batch.k.Row<float>(30)[0] = static_cast<float>(kNaN);
    batch.v.Row<float>(30)[0] = static_cast<float>(kNaN);
    const Tensor got = Run(batch, AtOnce(batch));
    EXPECT_TRUE(SameBits(got.view().Rows(0, 30), clean.view().Rows(0, 30))) << NameOf(type);
    for (int64_t r = 30; r < 60; ++r) ASSERT_TRUE(std::isnan(got.Row<float>(r)[0])) << r;
    // The other head never saw it.
    EXPECT_TRUE(SameBits(got.view().Cols(32, 32), clean.view().Cols(32, 32)));
  }
}

TEST_P(KvStoreTest, BytesAreWhatIsPromised) {
  for (const Type type : kTypes) {
    Batch batch = Coded(19, type, Heads(4, 2, 64), {0});
    const auto store = NewStore(backend(), exec(), batch);
    EXPECT_EQ(store->bytes(), 3 * KvBlockBytes(store->shape()));
    const int64_t head = type == Type::kFp8 ? 64 : type == Type::kInt8 ? 68 : 36;
    EXPECT_EQ(KvBlockBytes(store->shape()), 2 * 2 * 16 * head);
  }
}

TEST(KvSupport, Int4NeedsAPowerOfTwo) {
  EXPECT_FALSE(UnsupportedKv(Type::kInt4, 64));
  EXPECT_FALSE(UnsupportedKv(Type::kFp8, 80));
  ASSERT_TRUE(UnsupportedKv(Type::kInt4, 80));
  EXPECT_NE(UnsupportedKv(Type::kInt4, 80)->find("these have 80"), std::string::npos);
  EXPECT_TRUE(UnsupportedKv(Type::kInt4, 2048));
}

QUANTMILL_ALL_BACKENDS(KvStoreTest);

}  // namespace
}  // namespace quantmill::test
