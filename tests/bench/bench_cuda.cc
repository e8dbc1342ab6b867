// Ops of the cuda backend on shapes of Llama-3.1-8B: milliseconds, TFLOP/s or GB/s, and their share
// of what the device was measured to do just before: a large BF16 product for arithmetic, a pass
// that only reads for memory.
//
//   bench_cuda [--device cuda] [--repeat R] [--small]
//
// Each figure is the median of R runs (default 7), after one that is not counted, the caches filled
// with other data before each. Prints one JSON object a line: {"name", "ms", "tflops" or "gbs",
// "share"}. --small divides all sizes by 16, to try the program itself (with --device cpu, too).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "tests/support/backends.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

struct Options {
  std::string device = "cuda";
  int repeat = 7;
  int64_t divisor = 1;
};

// Which of the two limits bounds an op.
enum class Unit : uint8_t { kFlops, kBytes };

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        run_(SelectBackend(options.device, 0)),
        flush_(run_.Empty(DType::kF32, 1, kFlushBytes / 4)) {}

  Backend& backend() { return run_.backend(); }
  Exec& exec() { return run_.exec(); }
  int64_t Sized(int64_t size) const { return std::max<int64_t>(16, size / options_.divisor); }

  // A matrix of normal numbers in device memory. Rows are pieces of a pool, all different.
  Tensor Normal(DType dtype, int64_t rows, int64_t cols, double scale = 1) {
    constexpr int64_t kPool = 1 << 20;
    constexpr int64_t kStep = 7919;  // a prime: rows start where no other does
    const Tensor pool = NormalMatrix(random_, dtype, 1, kPool + cols, scale);
    Tensor device = run_.Empty(dtype, rows, cols);
    for (int64_t r = 0; r < rows; ++r) {
      backend().Upload(exec(), pool.view().Cols(r * kStep % kPool, cols), device.view().Rows(r, 1));
    }
    exec().stream.Synchronize();
    return device;
  }

  // Seconds of `work`, after `prepare` each time. Median.
  double Seconds(const std::function<void()>& prepare, const std::function<void()>& work) {
    std::vector<double> seconds;
    for (int i = 0; i <= options_.repeat; ++i) {
      prepare();
      backend().Zero(exec(), flush_);
      exec().stream.Synchronize();
      const auto start = std::chrono::steady_clock::now();
      work();
      exec().stream.Synchronize();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      if (i > 0) seconds.push_back(elapsed.count());
    }
    std::nth_element(seconds.begin(), seconds.begin() + std::ssize(seconds) / 2, seconds.end());
    return seconds[seconds.size() / 2];
  }

  void Report(
      const std::string& name, Unit unit, double amount, const std::function<void()>& work,
      const std::function<void()>& prepare = [] {}) {
    const double seconds = Seconds(prepare, work);
    double& limit = unit == Unit::kFlops ? peak_flops_ : peak_bytes_;
    const double rate = amount / seconds;
    if (limit == 0) limit = rate;  // the first of its kind is the limit
    std::printf(R"({"name": "%s", "ms": %.4f, "%s": %.1f, "share": %.3f})"
                "\n",
                name.c_str(), seconds * 1e3, unit == Unit::kFlops ? "tflops" : "gbs",
                rate * (unit == Unit::kFlops ? 1e-12 : 1e-9), rate / limit);
    std::fflush(stdout);
  }

 private:
  static constexpr int64_t kFlushBytes = int64_t{256} << 20;

  Options options_;
  BackendRun run_;
  Tensor flush_;
  Random random_{1};
  double peak_flops_ = 0;
  double peak_bytes_ = 0;
};

std::string Named(const char* op, int64_t a, int64_t b) {
  return std::string(op) + " " + std::to_string(a) + " x " + std::to_string(b);
}

void MatMul(Bench& bench, const char* name, int64_t tokens, int64_t in, int64_t out) {
  Random random(2);
  const auto weight = bench.backend().PackDense(
      bench.exec(), NormalMatrix(random, DType::kBF16, out, in, 0.02), Compute::kBF16);
  const Tensor x = bench.Normal(DType::kBF16, tokens, in);
  const Tensor y = bench.backend().Empty(DType::kF32, tokens, out);
  bench.Report(
      Named(name, in, out), Unit::kFlops, 2.0 * static_cast<double>(tokens * in * out),
      [&] { bench.backend().MatMul(bench.exec(), x, *weight, {}, MatMulMode::kStore, y); });
}

void Stream(Bench& bench) {
  const int64_t rows = bench.Sized(1 << 15);
  const int64_t cols = bench.Sized(1 << 14);
  const Tensor x = bench.Normal(DType::kF32, rows, cols);
  const Tensor out = bench.backend().Empty(DType::kBF16, rows, cols);
  bench.Report("F32 to BF16 (the measured limit of memory)", Unit::kBytes,
               6.0 * static_cast<double>(rows * cols),
               [&] { bench.backend().Convert(bench.exec(), x, out); });
}

void Rows(Bench& bench) {
  const int64_t tokens = bench.Sized(8192);
  const int64_t hidden = bench.Sized(4096);
  const int64_t ffn = bench.Sized(14336);
  const Tensor x = bench.Normal(DType::kF32, tokens, hidden);
  const Tensor normed = bench.backend().Empty(DType::kBF16, tokens, hidden);
  NormParams norm;
  const Tensor gain = bench.Normal(DType::kF32, 1, hidden);
  norm.gain = gain;
  bench.Report(Named("Norm", tokens, hidden), Unit::kBytes,
               6.0 * static_cast<double>(tokens * hidden),
               [&] { bench.backend().Norm(bench.exec(), x, norm, normed); });
  const Tensor gate = bench.Normal(DType::kF32, tokens, ffn);
  const Tensor up = bench.Normal(DType::kF32, tokens, ffn);
  const Tensor activated = bench.backend().Empty(DType::kBF16, tokens, ffn);
  bench.Report(Named("GatedActivation", tokens, ffn), Unit::kBytes,
               10.0 * static_cast<double>(tokens * ffn), [&] {
                 bench.backend().GatedActivation(bench.exec(), Activation::kSilu, gate, up,
                                                 activated);
               });
}

void Gram(Bench& bench) {
  const int64_t tokens = bench.Sized(8192);
  for (const int64_t in : {bench.Sized(4096), bench.Sized(14336)}) {
    const Tensor x = bench.Normal(DType::kBF16, tokens, in);
    const Tensor y = bench.Normal(DType::kBF16, tokens, in);
    const Tensor gram = bench.backend().Empty(DType::kF32, in, in);
    bench.backend().Zero(bench.exec(), gram);
    const auto multiplications = static_cast<double>(tokens * in * in);
    bench.Report(Named("AddGram (one half counted)", tokens, in), Unit::kFlops, multiplications,
                 [&] { bench.backend().AddGram(bench.exec(), x, gram); });
    bench.Report(Named("AddCross", tokens, in), Unit::kFlops, 2 * multiplications,
                 [&] { bench.backend().AddCross(bench.exec(), x, y, gram); });
  }
}

// A factored problem of random weights on the Gram matrix of random inputs.
void Solve(Bench& bench, int64_t out, int64_t in) {
  Backend& backend = bench.backend();
  Exec& exec = bench.exec();
  const Tensor gram = backend.Empty(DType::kF32, in, in);
  const Tensor x = bench.Normal(DType::kBF16, in + in / 2, in);
  Random random(3);
  const Tensor diagonal = backend.Empty(DType::kF32, 1, in);
  const Tensor ones = HostTensor(DType::kF32, 1, in);
  Fill(ones, static_cast<double>(x.rows()));
  backend.Upload(exec, ones, diagonal);
  std::vector<int32_t> order(static_cast<size_t>(in));
  std::iota(order.begin(), order.end(), 0);
  const auto refill = [&] {
    backend.Zero(exec, gram);
    backend.AddGram(exec, x, gram);
    backend.PermuteGram(exec, order, gram);
  };
  const auto cube = static_cast<double>(in) * static_cast<double>(in) * static_cast<double>(in);
  bench.Report(
      "FactorGram " + std::to_string(in), Unit::kFlops, cube * 2 / 3,
      [&] {
        const FactorResult result = backend.FactorGram(exec, diagonal, 1.0f, Precision::kF32, gram);
        Check(result.ok, "bench_cuda: the Gram matrix was not factored");
      },
      refill);
  QuantScheme scheme;
  const Tensor weight = bench.Normal(DType::kF32, out, in, 0.02);
  const Tensor scales = backend.Empty(DType::kF32, out, scheme.GroupsFor(in));
  backend.MinMaxGrid(exec, weight, scheme, scales, {});
  const Tensor codes = backend.Empty(DType::kI8, out, in);
  const Tensor loss = backend.Empty(DType::kF32, 1, out);
  const GptqProblem problem = {weight, gram, order, scheme, scales, {}};
  const auto multiplications = static_cast<double>(out) * static_cast<double>(in * in);
  bench.Report(Named("GptqSolve", out, in), Unit::kFlops, multiplications,
               [&] { backend.GptqSolve(exec, problem, codes, loss); });
  bench.Report(Named("RefineCodes, one sweep", out, in), Unit::kFlops, 2 * multiplications,
               [&] { backend.RefineCodes(exec, problem, diagonal, 1, codes); });
  const Tensor blocks = bench.Normal(DType::kF32, in, scheme.GroupSizeFor(in));
  const std::vector<float> coarse = {0.7f, 0.8f, 0.9f};
  bench.Report(Named("SearchGrid, 3 candidates", out, in), Unit::kFlops,
               static_cast<double>(out * in * scheme.GroupSizeFor(in)) * 2 * 4, [&] {
                 backend.SearchGrid(exec, weight, blocks, scheme, {coarse, {}}, scales, {});
               });
}

void Attention(Bench& bench) {
  constexpr int64_t kHeads = 32;
  constexpr int64_t kKvHeads = 8;
  constexpr int64_t kHeadDim = 128;
  const int64_t tokens = std::max<int64_t>(16, bench.Sized(2048) / 16 * 16);
  Backend& backend = bench.backend();
  Exec& exec = bench.exec();
  std::vector<int32_t> table(static_cast<size_t>(tokens / kKvBlockTokens));
  std::iota(table.begin(), table.end(), 0);
  const std::vector<SequenceStep> steps = {{0, tokens, 0, table}};
  const auto plan = backend.PlanBatch(exec, steps);
  KvShape shape;
  shape.layers = 1;
  shape.blocks = std::ssize(table);
  shape.kv_heads = kKvHeads;
  shape.head_dim = kHeadDim;
  shape.dtype = DType::kBF16;
  const auto store = backend.NewKvStore(exec, shape);
  const Tensor keys = bench.Normal(DType::kF32, tokens, kKvHeads * kHeadDim);
  backend.AppendKv(exec, *plan, 0, keys, keys, *store);
  const Tensor q = bench.Normal(DType::kF32, tokens, kHeads * kHeadDim);
  const Tensor out = backend.Empty(DType::kBF16, tokens, kHeads * kHeadDim);
  const AttentionParams params = {kHeads, kKvHeads, kHeadDim, 0.088f};
  const auto pairs = static_cast<double>(tokens) * static_cast<double>(tokens + 1) / 2;
  bench.Report("Attention, causal, " + std::to_string(tokens) + " tokens", Unit::kFlops,
               4 * pairs * kHeads * kHeadDim,
               [&] { backend.Attention(exec, *plan, 0, params, q, *store, out); });
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--small") == 0) {
      options.divisor = 16;
    } else if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
      options.device = argv[++i];
    } else if (std::strcmp(argv[i], "--repeat") == 0 && i + 1 < argc) {
      options.repeat = std::max(1, std::atoi(argv[++i]));
    } else {
      std::fprintf(stderr, "bench_cuda: unknown option %s\n", argv[i]);
      std::exit(2);
    }
  }
  return options;
}

int Main(int argc, char** argv) {
  try {
    Bench bench(Parse(argc, argv));
    MatMul(bench, "MatMul (the measured limit of arithmetic)", bench.Sized(8192), bench.Sized(8192),
           bench.Sized(8192));
    MatMul(bench, "MatMul", bench.Sized(8192), bench.Sized(4096), bench.Sized(14336));
    MatMul(bench, "MatMul", bench.Sized(8192), bench.Sized(14336), bench.Sized(4096));
    Stream(bench);
    Rows(bench);
    Gram(bench);
    Attention(bench);
    Solve(bench, bench.Sized(4096), bench.Sized(4096));
    Solve(bench, bench.Sized(14336), bench.Sized(4096));
    Solve(bench, bench.Sized(4096), bench.Sized(14336));
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}

}  // namespace
}  // namespace quantmill::test

int main(int argc, char** argv) { return quantmill::test::Main(argc, argv); }
