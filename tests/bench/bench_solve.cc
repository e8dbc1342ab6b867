// Speed of the solve ops on a cpu backend, and of the solvers made of them: milliseconds (best of
// several runs), GFLOP/s and their share of the FMA rate measured here on the same threads.
//
//   bench_solve [--threads N] [--isa NAME] [--large]
//
// --large adds inputs of 14336 (needs about 2 GiB).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "kernels/own_exec.h"
#include "kernels/select.h"
#include "quant/solve/gptq.h"
#include "tests/support/random.h"

namespace quantmill {
namespace {

double SecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// ---- FMA rate: independent chains in registers ----

using Wide = float __attribute__((vector_size(64)));

#if defined(__x86_64__)
__attribute__((target("avx512f"))) float FmaLoop512(int64_t steps) {
  Wide x[16];
  for (int i = 0; i < 16; ++i) x[i] = Wide{} + static_cast<float>(i);  // or they are one chain
  const Wide a = Wide{} + 0.999f;
  const Wide b = Wide{} + 0.001f;
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (Wide& v : x) v = v * a + b;
  }
  float sum = 0;
  for (const Wide& v : x) sum += v[0];
  return sum;
}

using Half = float __attribute__((vector_size(32)));
__attribute__((target("avx2,fma"))) float FmaLoop256(int64_t steps) {
  Half x[12];
  for (int i = 0; i < 12; ++i) x[i] = Half{} + static_cast<float>(i);  // or they are one chain
  const Half a = Half{} + 0.999f;
  const Half b = Half{} + 0.001f;
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (Half& v : x) v = v * a + b;
  }
  float sum = 0;
  for (const Half& v : x) sum += v[0];
  return sum;
}
#endif

// FLOP/s of `threads` threads together; 0 where this machine's instruction set is not known here.
double FmaRate(const std::string& isa, int threads) {
  constexpr int64_t kSteps = 20'000'000;
  double flops_per_step = 0;
  float (*loop)(int64_t) = nullptr;
#if defined(__x86_64__)
  if (isa.starts_with("avx512")) {
    loop = &FmaLoop512;
    flops_per_step = 16 * 32;
  } else if (isa == "avx2") {
    loop = &FmaLoop256;
    flops_per_step = 12 * 16;
  }
#endif
  if (loop == nullptr) return 0;
  std::vector<float> sink(static_cast<size_t>(threads));
  double best = 0;
  for (int run = 0; run < 3; ++run) {
    const double seconds = SecondsOf([&] {
      std::vector<std::thread> pool;
      pool.reserve(sink.size());
      for (float& slot : sink) pool.emplace_back([&slot, loop] { slot = loop(kSteps); });
      for (std::thread& t : pool) t.join();
    });
    best = std::max(best, flops_per_step * kSteps * threads / seconds);
  }
  return std::accumulate(sink.begin(), sink.end(), 0.0f) < 0 ? 0 : best;
}

// ---- ops ----

struct Bench {
  Backend& backend;
  Exec exec;
  double fma_rate;

  void Report(const std::string& name, double flops, int runs, const std::function<void()>& prepare,
              const std::function<void()>& work) const {
    double best = 1e30;
    for (int run = 0; run < runs; ++run) {
      prepare();
      best = std::min(best, SecondsOf(work));
    }
    std::printf("%-34s %9.2f ms", name.c_str(), best * 1e3);
    if (flops > 0) std::printf("  %7.1f GFLOP/s", flops / best * 1e-9);
    if (flops > 0 && fma_rate > 0) std::printf("  %5.1f %% of FMA", 100 * flops / best / fma_rate);
    std::printf("\n");
  }
};

std::string Shape(const char* op, int64_t a, int64_t b) {
  return std::string(op) + (b > 0 ? " out " + std::to_string(b) : "") + " in " + std::to_string(a);
}

// A Gram matrix that is well conditioned without a large product: diagonal 1, |others| < 1 / in.
void FillGram(test::Random& random, Matrix gram) {
  for (int64_t i = 0; i < gram.rows; ++i) {
    for (int64_t j = 0; j < gram.cols; ++j) {
      gram.Row<float>(i)[j] =
          i == j ? 1.0f
                 : static_cast<float>(random.Uniform(-1, 1) / static_cast<double>(gram.cols));
    }
  }
}

void Run(const Bench& bench, int64_t in, int64_t out) {
  test::Random random(1);
  Backend& backend = bench.backend;
  Exec exec = bench.exec;
  const int runs = in >= 4096 ? 2 : 15;
  const auto none = [] {};
  const auto n = static_cast<double>(in);
  Tensor gram = backend.Empty(DType::kF32, in, in);
  FillGram(random, gram);
  std::vector<int32_t> order(static_cast<size_t>(in));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size() - 1; i > 0; --i) {
    std::swap(order[i], order[static_cast<size_t>(random.Int(0, static_cast<int64_t>(i)))]);
  }
  bench.Report(Shape("PermuteGram", in, 0), 0, runs, none,
               [&] { backend.PermuteGram(exec, order, gram); });
  Tensor diagonal = backend.Empty(DType::kF32, 1, in);
  test::Fill(diagonal, 1);
  bench.Report(Shape("FactorGram", in, 0), 2.0 / 3 * n * n * n, runs, none,
               [&] { backend.FactorGram(exec, diagonal, 0.01f, Precision::kF32, gram); });

  const QuantScheme scheme{.bits = 4, .symmetric = true, .group_size = in % 128 == 0 ? 128 : 64};
  const Tensor weight = test::NormalMatrix(random, DType::kF32, out, in, 0.05);
  const Tensor scales = backend.Empty(DType::kF32, out, scheme.GroupsFor(in));
  const Tensor codes = backend.Empty(DType::kI8, out, in);
  const Tensor loss = backend.Empty(DType::kF32, 1, out);
  const auto rows = static_cast<double>(out);
  bench.Report(Shape("MinMaxGrid", in, out), 0, runs, none,
               [&] { backend.MinMaxGrid(exec, weight, scheme, scales, {}); });
  bench.Report(Shape("RoundToGrid", in, out), 0, runs, none,
               [&] { backend.RoundToGrid(exec, weight, scheme, scales, {}, codes); });
  bench.Report(Shape("GptqSolve", in, out), rows * n * n, runs, none, [&] {
    backend.GptqSolve(exec, {weight, gram, order, scheme, scales, {}}, codes, loss);
  });
  Tensor consumed;
  const auto refill = [&] {
    consumed = backend.Empty(DType::kF32, in, in);
    FillGram(random, consumed);
  };
  // What the pipeline calls: with downloads and the error of the result.
  bench.Report(Shape("  PrepareGptq", in, 0), 0, std::min(runs, 5), refill,
               [&] { PrepareGptq(backend, exec, std::move(consumed), {}); });
  refill();
  const GptqFactor factor = PrepareGptq(backend, exec, std::move(consumed), {});
  bench.Report(Shape("  SolveGptq", in, out), 0, std::min(runs, 5), none,
               [&] { SolveGptq(backend, exec, factor, weight, scheme); });
  bench.Report(Shape("QuadraticForm", in, out), rows * n * n, runs, none,
               [&] { backend.QuadraticForm(exec, weight, gram, diagonal, loss); });
}

int Main(int argc, char** argv) {
  int threads = 2;
  std::string isa = AvailableIsas().front();
  bool large = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--large") == 0) large = true;
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) threads = std::atoi(argv[++i]);
    if (std::strcmp(argv[i], "--isa") == 0 && i + 1 < argc) isa = argv[++i];
  }
  const std::unique_ptr<Backend> backend = CpuBackend(isa, threads);
  OwnExec exec(*backend);
  const Bench bench{*backend, exec.exec(), FmaRate(isa, threads)};
  std::printf("%s, %d threads, FMA rate %.1f GFLOP/s\n", isa.c_str(), threads,
              bench.fma_rate * 1e-9);
  Run(bench, 576, 1536);
  Run(bench, 1536, 576);
  Run(bench, 4096, 1024);
  if (large) Run(bench, 14336, 512);
  return 0;
}

}  // namespace
}  // namespace quantmill

int main(int argc, char** argv) { return quantmill::Main(argc, argv); }
