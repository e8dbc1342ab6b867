// Speed of attention and of the other forward ops.
//
//   bench_attention [threads]          all workloads; threads: default all CPUs
//
// attention counts 4 * head_dim * heads * (sum over tokens of the keys they see) operations; the
// others count bytes read and written once. The median of several runs is printed, and operations
// per second of CPU time, which other programs on the machine disturb less.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/own_exec.h"
#include "kernels/select.h"
#include "tests/support/random.h"

namespace quantmill {
namespace {

using test::NormalMatrix;
using test::Random;

struct Time {
  double wall = 0;
  double cpu = 0;  // of all threads
};

// Of one call: the median of calls that fill about a second.
Time TimeOf(const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  call();  // warm: pages are mapped, tables are filled
  std::vector<double> wall;
  std::vector<double> cpu;
  for (double total = 0; total < 1 || wall.size() < 5;) {
    const std::clock_t cpu_begin = std::clock();
    const auto begin = Clock::now();
    call();
    wall.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    cpu.push_back(static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC);
    total += wall.back();
  }
  std::ranges::sort(wall);
  std::ranges::sort(cpu);
  return {wall[wall.size() / 2], cpu[cpu.size() / 2]};
}
double Seconds(const std::function<void()>& call) { return TimeOf(call).wall; }

struct Bench {
  Backend& backend;
  Exec& exec;

  // `sequences` of `tokens` new tokens each, after `context` cached ones.
  void Attention(const char* name, int64_t sequences, int64_t tokens, int64_t context,
                 AttentionParams params, DType cache) {
    Random random(1);
    const int64_t per_sequence = (context + tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    const int64_t blocks = per_sequence * sequences;
    std::vector<int32_t> table(static_cast<size_t>(blocks));
    std::iota(table.begin(), table.end(), 0);
    for (size_t i = table.size(); i > 1; --i) {
      std::swap(table[i - 1],
                table[static_cast<size_t>(random.Int(0, static_cast<int64_t>(i) - 1))]);
    }
    auto store = backend.NewKvStore(exec, {.layers = 1,
                                           .blocks = blocks,
                                           .kv_heads = params.kv_heads,
                                           .head_dim = params.head_dim,
                                           .dtype = cache});
    const auto steps = [&](int64_t from, int64_t count) {
      std::vector<SequenceStep> result;
      for (int64_t s = 0; s < sequences; ++s) {
        result.push_back(
            {.first_row = s * count,
             .tokens = count,
             .context = from,
             .block_table = std::span(table).subspan(static_cast<size_t>(s * per_sequence),
                                                     static_cast<size_t>(per_sequence))});
      }
      return result;
    };
    const int64_t all = context + tokens;
    const int64_t width = params.kv_heads * params.head_dim;
    const Tensor k = NormalMatrix(random, DType::kF32, sequences * all, width);
    const Tensor v = NormalMatrix(random, DType::kF32, sequences * all, width);
    const auto fill = backend.PlanBatch(exec, steps(0, all));
    backend.AppendKv(exec, *fill, 0, k, v, *store);

    const int64_t rows = sequences * tokens;
    const auto plan = backend.PlanBatch(exec, steps(context, tokens));
    const Tensor q = NormalMatrix(random, DType::kF32, rows, params.heads * params.head_dim);
    const Tensor out = backend.Empty(DType::kF32, rows, params.heads * params.head_dim);
    params.scale = 1.0f / std::sqrt(static_cast<float>(params.head_dim));
    const Time time = TimeOf([&] { backend.Attention(exec, *plan, 0, params, q, *store, out); });
    double keys = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t seen = context + t + 1;
      const int64_t window = params.sliding_window;
      keys += static_cast<double>(window > 0 ? std::min(window, seen) : seen);
    }
    const double flops =
        4.0 * static_cast<double>(params.head_dim * params.heads * sequences) * keys;
    const double bytes = static_cast<double>(KvBlockBytes(store->shape()) * blocks);
    std::printf("%-44s %9.3f ms %8.1f GFLOP/s (%5.1f per core) %6.1f GB/s of cache\n", name,
                time.wall * 1e3, flops / time.wall * 1e-9, flops / time.cpu * 1e-9,
                bytes / time.wall * 1e-9);
    const double append = Seconds([&] { backend.AppendKv(exec, *fill, 0, k, v, *store); });
    std::printf("%-44s %9.3f ms %8.1f GB/s\n", "  append of all of it", append * 1e3,
                static_cast<double>(k.bytes() * 2) * 1.5 / append * 1e-9);
  }

  void Bandwidth(const char* name, double bytes, const std::function<void()>& call) {
    const double seconds = Seconds(call);
    std::printf("%-44s %9.3f ms %8.1f GB/s\n", name, seconds * 1e3, bytes / seconds * 1e-9);
  }

  void Elementwise() {
    Random random(2);
    const int64_t tokens = 4096;
    const int64_t hidden = 576;
    const int64_t ffn = 1536;
    const int64_t head_dim = 64;
    const Tensor x = NormalMatrix(random, DType::kF32, tokens, hidden);
    const Tensor gain = NormalMatrix(random, DType::kF32, 1, hidden);
    const Tensor bf16 = backend.Empty(DType::kBF16, tokens, hidden);
    NormParams norm;
    norm.gain = gain;
    Bandwidth("RMS norm [4096, 576] to BF16", static_cast<double>(x.bytes()) * 1.5,
              [&] { backend.Norm(exec, x, norm, bf16); });
    const Tensor gate = NormalMatrix(random, DType::kF32, tokens, ffn);
    const Tensor up = NormalMatrix(random, DType::kF32, tokens, ffn);
    const Tensor out = backend.Empty(DType::kBF16, tokens, ffn);
    for (const auto& [name, activation] :
         {std::pair{"silu x up [4096, 1536] to BF16", Activation::kSilu},
          std::pair{"gelu (tanh) x up", Activation::kGeluTanh},
          std::pair{"gelu (erf) x up", Activation::kGelu}}) {
      Bandwidth(name, static_cast<double>(gate.bytes()) * 2.5,
                [&, a = activation] { backend.GatedActivation(exec, a, gate, up, out); });
    }
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      inv_freq.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / head_dim));
    }
    const std::vector<int32_t> table(static_cast<size_t>(tokens / kKvBlockTokens));
    const std::vector<SequenceStep> steps = {{0, tokens / 2, 0, table},
                                             {tokens / 2, tokens / 2, 0, table}};
    const auto plan = backend.PlanBatch(exec, steps);
    const RopeParams rope{.head_dim = head_dim, .rotary_dim = head_dim, .inv_freq = inv_freq};
    Bandwidth("rope [2 x 2048, 9 x 64], table kept", static_cast<double>(x.bytes()) * 2,
              [&] { backend.Rope(exec, *plan, rope, x); });
    Bandwidth("rope, with a new plan and table", static_cast<double>(x.bytes()) * 2, [&] {
      const auto fresh = backend.PlanBatch(exec, steps);
      backend.Rope(exec, *fresh, rope, x);
    });
  }

  void Scores() {
    Random random(3);
    const int64_t tokens = 512;
    const int64_t vocab = 49152;
    const Tensor reference = NormalMatrix(random, DType::kF32, tokens, vocab, 3);
    const Tensor test = backend.Empty(DType::kF32, tokens, vocab);
    for (int64_t r = 0; r < tokens; ++r) {
      for (int64_t i = 0; i < vocab; ++i) {
        test.Row<float>(r)[i] =
            reference.Row<float>(r)[i] + static_cast<float>(random.Uniform(-0.3, 0.3));
      }
    }
    const std::vector<int32_t> targets(static_cast<size_t>(tokens), 17);
    std::vector<TokenScore> scores(targets.size());
    std::vector<TokenComparison> comparisons(targets.size());
    const auto rate = [&](const char* name, const std::function<void()>& call) {
      const double seconds = Seconds(call);
      std::printf("%-44s %9.3f ms %8.2f G logits/s\n", name, seconds * 1e3,
                  static_cast<double>(tokens * vocab) / seconds * 1e-9);
    };
    rate("ScoreLogits [512, 49152]",
         [&] { backend.ScoreLogits(exec, reference, targets, scores); });
    rate("CompareLogits [512, 49152]",
         [&] { backend.CompareLogits(exec, reference, test, targets, comparisons); });
    rate("SoftCap [512, 49152]", [&] { backend.SoftCap(exec, 30, test); });
  }
};

int Main(int argc, char** argv) {
  const auto backend = SelectBackend("cpu", argc > 1 ? std::atoi(argv[1]) : 0);
  OwnExec exec(*backend);
  Bench bench{*backend, exec.exec()};
  std::printf("%s, %d threads\n", backend->Info().isa.c_str(), backend->Info().threads);
  const AttentionParams small{.heads = 9, .kv_heads = 3, .head_dim = 64};
  const AttentionParams large{.heads = 32, .kv_heads = 8, .head_dim = 128};
  AttentionParams sliding = large;
  sliding.sliding_window = 512;
  bench.Attention("9/3 heads of 64, 2 x 2048 tokens, F32", 2, 2048, 0, small, DType::kF32);
  bench.Attention("9/3 heads of 64, 2 x 2048 tokens, BF16", 2, 2048, 0, small, DType::kBF16);
  bench.Attention("9/3 heads of 64, 8 x 512 tokens, F32", 8, 512, 0, small, DType::kF32);
  bench.Attention("32/8 heads of 128, 1 x 2048 tokens, F32", 1, 2048, 0, large, DType::kF32);
  bench.Attention("32/8 heads of 128, 1 x 2048 tokens, BF16", 1, 2048, 0, large, DType::kBF16);
  bench.Attention("32/8 heads of 128, window 512, F32", 1, 2048, 0, sliding, DType::kF32);
  bench.Attention("9/3 heads of 64, decode 16 at 2047, F32", 16, 1, 2047, small, DType::kF32);
  bench.Attention("9/3 heads of 64, decode 16 at 2047, BF16", 16, 1, 2047, small, DType::kBF16);
  bench.Attention("32/8 heads of 128, decode 1 at 8191, F32", 1, 1, 8191, large, DType::kF32);
  bench.Elementwise();
  bench.Scores();
  return 0;
}

}  // namespace
}  // namespace quantmill

int main(int argc, char** argv) { return quantmill::Main(argc, argv); }
