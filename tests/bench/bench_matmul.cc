// MatMul and AddGram: GFLOP/s, GB/s and their share of what the machine can do, oneDNN beside them
// where it is installed.
//
//   taskset -c 0,1 bench_matmul [--threads N] [--isa NAME] [--only gemm|rounded|gemv|gram]
//   [--repeat R]
//                             [--clock wall|cpu]
//
// "rounded": inputs rounded to int8 or E4M3 as a part of the product, BF16 beside them.
//
// "of peak": of the tile kernel on operands in L1 (times threads), measured first. "of stream": of
// reading memory with one load per cache line, by all threads. Each figure is the best of R runs;
// the weights of gemv exceed the caches (copies are cycled). On a machine that others use as well,
// --clock cpu divides the CPU time by the threads: what undisturbed cores would take, threads that
// wait for the last one not counted.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/select.h"
#include "tests/support/backends.h"
#include "tests/support/random.h"

// omp.h comes with the compiler, and may not with clang-tidy's.
#if defined(QUANTMILL_ONEDNN) && !__has_include(<omp.h>)
#undef QUANTMILL_ONEDNN
#endif
#if defined(QUANTMILL_ONEDNN)
#include <omp.h>

#include <dnnl.hpp>
#endif

namespace quantmill::test {
namespace {

struct Options {
  int threads = AvailableCpus();
  int repeat = 7;
  bool cpu_clock = false;
  std::string isa = AvailableIsas().front();
  std::string only;
};

double Now(bool cpu_clock) {
  timespec time;
  clock_gettime(cpu_clock ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Seconds of the fastest of the runs, each of which keeps `threads` threads busy.
template <typename Run>
double Fastest(const Options& options, int threads, const Run& run) {
  double best = 1e30;
  for (int i = 0; i < options.repeat; ++i) {
    const double start = Now(options.cpu_clock);
    run();
    const double seconds = Now(options.cpu_clock) - start;
    best = std::min(best, options.cpu_clock ? seconds / threads : seconds);
  }
  return best;
}

struct Shape {
  int64_t in;
  int64_t out;
};
constexpr Shape kShapes[] = {{576, 576}, {576, 1536}, {1536, 576}, {4096, 14336}, {576, 49152}};

// ---- what the machine can do ----

cpu::Isa IsaOf(const std::string& name) {
  for (const cpu::Isa isa : {cpu::Isa::kAmx, cpu::Isa::kAvx512Bf16, cpu::Isa::kAvx512,
                             cpu::Isa::kAvx2, cpu::Isa::kGeneric}) {
    if (cpu::NameOf(isa) == name) return isa;
  }
  return cpu::Isa::kGeneric;
}

// GFLOP/s of one thread's tile kernel, all operands in L1; of parts, with weights of F32.
double TilePeak(const Options& options, Compute compute) {
  const cpu::MatMulKernels& kernels = cpu::SelectMatMulKernels(IsaOf(options.isa));
  const cpu::MatMulForm& wanted = compute == Compute::kBF16     ? kernels.bf16
                                  : compute == Compute::kBF16x3 ? kernels.bf16x3
                                                                : kernels.f32;
  const cpu::MatMulForm& form = wanted.tile != nullptr ? wanted : kernels.f32;
  const int64_t steps = 64 / form.parts / form.step_unit * form.step_unit;
  constexpr int kCalls = 2000;
  const Tensor x = HostTensor(DType::kF32, form.tile_rows, steps * form.parts);
  const Tensor w = HostTensor(DType::kF32, steps * form.parts, kernels.panel_cols);
  const Tensor sums = HostTensor(DType::kF32, form.tile_rows, kernels.panel_cols);
  Fill(x, 0);
  Fill(w, 0);
  cpu::TileArgs args;
  args.rows = form.tile_rows;
  args.x = x.view().data;
  args.x_row = steps * form.parts;
  args.w = w.view().data;
  args.w_parts = form.parts;
  args.ahead = args.w;
  args.steps = steps;
  args.sums = sums.Row<float>(0);
  const double seconds = Fastest(options, 1, [&] {
    for (int i = 0; i < kCalls; ++i) form.tile(args);
  });
  const auto products = static_cast<double>(kCalls * form.tile_rows * kernels.panel_cols * steps);
  return 2.0 * products * form.step_inputs / seconds / 1e9;
}

// GB/s of all threads reading a block that no cache holds.
double ReadStream(const Options& options) {
  constexpr int64_t kBytes = int64_t{512} << 20;
  const Tensor block = HostTensor(DType::kU8, 1, kBytes);
  std::memset(block.view().data, 1, static_cast<size_t>(kBytes));
  ThreadPool pool(options.threads);
  std::vector<uint64_t> sums(static_cast<size_t>(options.threads) * 8);
  constexpr int64_t kTask = int64_t{4} << 20;
  const double seconds = Fastest(options, options.threads, [&] {
    pool.ParallelFor(kBytes / kTask, [&](int64_t task, int thread) {
      const uint8_t* p = block.Row<uint8_t>(0) + task * kTask;
      uint64_t sum = 0;
      for (int64_t i = 0; i < kTask; i += 64) {
        uint64_t word;
        std::memcpy(&word, p + i, sizeof(word));
        sum += word;
      }
      sums[static_cast<size_t>(thread) * 8] += sum;
    });
  });
  return static_cast<double>(kBytes) / seconds / 1e9;
}

// ---- oneDNN ----

#if defined(QUANTMILL_ONEDNN)
// GFLOP/s of x [tokens, in] times a prepacked weight, in F32 or BF16 (F32 result).
double OneDnnGemm(const Options& options, int64_t tokens, Shape s, bool bf16) {
  using dnnl::memory;
  omp_set_num_threads(options.threads);
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc x_desc({tokens, s.in}, type, memory::format_tag::ab);
  const memory::desc w_any({s.in, s.out}, type, memory::format_tag::any);
  const memory::desc y_desc({tokens, s.out}, memory::data_type::f32, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc primitive({x_desc, w_any, y_desc}, engine);
  memory x(x_desc, engine);
  memory w(primitive.weights_desc(), engine);
  memory y(y_desc, engine);
  std::memset(x.get_data_handle(), 0, x_desc.get_size());
  std::memset(w.get_data_handle(), 0, primitive.weights_desc().get_size());
  const dnnl::matmul matmul(primitive);
  const double seconds = Fastest(options, options.threads, [&] {
    matmul.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
    stream.wait();
  });
  return 2.0 * static_cast<double>(tokens * s.in * s.out) / seconds / 1e9;
}
#else
double OneDnnGemm(const Options&, int64_t, Shape, bool) { return 0; }
#endif

// ---- ours ----

QuantScheme SchemeOf(const std::string& type) {
  QuantScheme scheme;
  scheme.bits = type == "i4" ? 4 : 8;
  if (type == "w8a8") scheme.input.type = InputScheme::Type::kInt8;
  if (type == "fp8") scheme.input.type = InputScheme::Type::kFp8;
  if (type == "w8a8" || type == "fp8") scheme.group_size = QuantScheme::kPerChannel;
  if (type == "fp8 blocks") {
    scheme.input = {.type = InputScheme::Type::kFp8, .group_size = 128};
    scheme.row_block = 128;
  }
  if (type.starts_with("fp8")) scheme.code_type = CodeType::kFp8;
  return scheme;
}

QuantizedLinear RandomCodes(Random& random, const std::string& type, Shape s) {
  QuantizedLinear q;
  q.scheme = SchemeOf(type);
  q.out = s.out;
  q.in = s.in;
  q.codes.resize(static_cast<size_t>(s.out * s.in));
  for (int8_t& code : q.codes) {
    // No NaN of E4M3.
    code = static_cast<int8_t>(random.Int(q.scheme.min_code(), q.scheme.max_code() - 1));
    if (code == -1) code = 0;
  }
  q.scales.assign(static_cast<size_t>(s.out * q.groups()), 0.0078125f);
  return q;
}

std::unique_ptr<PackedLinear> PackedWeight(BackendRun& run, const std::string& type, Shape s,
                                           Compute compute) {
  Random random(1);
  if (type != "f32" && type != "f16" && type != "bf16") {
    return run.backend().PackQuantized(run.exec(), RandomCodes(random, type, s), compute);
  }
  const DType dtype = type == "f32" ? DType::kF32 : type == "f16" ? DType::kF16 : DType::kBF16;
  const Tensor weight = HostTensor(dtype, s.out, s.in);
  std::memset(weight.view().data, 0, static_cast<size_t>(weight.bytes()));
  return run.backend().PackDense(run.exec(), weight, compute);
}

void BenchGemm(const Options& options, BackendRun& run) {
  constexpr int64_t kTokens = 2048;
  for (const Compute compute : {Compute::kF32, Compute::kBF16x3, Compute::kBF16}) {
    const bool bf16 = compute == Compute::kBF16;
    const double peak = TilePeak(options, compute) * options.threads;
    std::printf("\n%s compute, %lld tokens, peak %.0f GFLOP/s\n", NameOf(compute),
                static_cast<long long>(kTokens), peak);
    std::printf("%6s %6s %8s %10s %8s %10s\n", "in", "out", "weight", "GFLOP/s", "of peak",
                "oneDNN");
    for (const Shape s : kShapes) {
      const Tensor x = run.Empty(ActivationType(compute), kTokens, s.in);
      const Tensor y = run.Empty(DType::kF32, kTokens, s.out);
      Fill(x, 0.5);
      for (const std::string type : {"f32", "f16", "bf16", "i4"}) {
        if (bf16 && (type == "f32" || type == "f16")) continue;  // the same panels as bf16
        const auto w = PackedWeight(run, type, s, compute);
        const double seconds = Fastest(options, options.threads, [&] {
          run.backend().MatMul(run.exec(), x, *w, {}, MatMulMode::kStore, y);
        });
        const double rate = 2.0 * static_cast<double>(kTokens * s.in * s.out) / seconds / 1e9;
        const bool compare = type == (bf16 ? "bf16" : "f32");
        std::printf("%6lld %6lld %8s %10.0f %7.0f%%", static_cast<long long>(s.in),
                    static_cast<long long>(s.out), type.c_str(), rate, 100 * rate / peak);
        if (compare) std::printf(" %10.0f", OneDnnGemm(options, kTokens, s, bf16));
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
}

// GOP/s of a product of 16 or fewer tokens, or of a batch; x is BF16 where that is faster.
void BenchRounded(const Options& options, BackendRun& run) {
  const Compute compute = run.backend().Info().compute_bf16 ? Compute::kBF16 : Compute::kF32;
  std::printf("\nrounded inputs, GOP/s\n%6s %6s %6s", "tokens", "in", "out");
  const std::vector<std::string> types = {"bf16", "w8a8", "fp8", "fp8 blocks"};
  for (const std::string& type : types) std::printf(" %10s", type.c_str());
  for (const Shape s : {Shape{576, 1536}, Shape{1536, 576}, Shape{4096, 4096}}) {
    for (const int64_t tokens : {1, 16, 2048}) {
      const Tensor x = run.Empty(ActivationType(compute), tokens, s.in);
      const Tensor y = run.Empty(DType::kF32, tokens, s.out);
      Fill(x, 0.5);
      std::printf("\n%6lld %6lld %6lld", static_cast<long long>(tokens),
                  static_cast<long long>(s.in), static_cast<long long>(s.out));
      for (const std::string& type : types) {
        const auto w = PackedWeight(run, type, s, compute);
        const double seconds = Fastest(options, options.threads, [&] {
          run.backend().MatMul(run.exec(), x, *w, {}, MatMulMode::kStore, y);
        });
        std::printf(" %10.0f", 2.0 * static_cast<double>(tokens * s.in * s.out) / seconds / 1e9);
        std::fflush(stdout);
      }
    }
  }
  std::printf("\n");
}

void BenchGemv(const Options& options, BackendRun& run) {
  const double stream = ReadStream(options);
  std::printf("\ndecode, read stream %.1f GB/s\n", stream);
  std::printf("%6s %6s %8s %7s %10s %10s %9s\n", "in", "out", "weight", "tokens", "us", "GB/s",
              "of stream");
  for (const Shape s : {Shape{576, 576}, Shape{1536, 576}, Shape{4096, 14336}}) {
    for (const std::string type : {"f32", "f16", "bf16", "bf16c", "i8", "i4", "i4c", "i4x"}) {
      // A trailing c: Compute::kBF16; x: Compute::kBF16x3.
      const Compute compute = type.back() == 'c'   ? Compute::kBF16
                              : type.back() == 'x' ? Compute::kBF16x3
                                                   : Compute::kF32;
      const std::string stored = compute == Compute::kF32 ? type : type.substr(0, type.size() - 1);
      std::vector<std::unique_ptr<PackedLinear>> copies;
      int64_t bytes = 0;
      while (bytes < int64_t{96} << 20) {
        copies.push_back(PackedWeight(run, stored, s, compute));
        bytes += copies.back()->bytes();
      }
      for (const int64_t tokens : {1, 4, 8, 16}) {
        const Tensor x = run.Empty(ActivationType(compute), tokens, s.in);
        const Tensor y = run.Empty(DType::kF32, tokens, s.out);
        Fill(x, 0.5);
        const double seconds = Fastest(options, options.threads, [&] {
          for (const auto& w : copies) {
            run.backend().MatMul(run.exec(), x, *w, {}, MatMulMode::kStore, y);
          }
        });
        const double rate = static_cast<double>(bytes) / seconds / 1e9;
        std::printf("%6lld %6lld %8s %7lld %10.1f %10.1f %8.0f%%\n", static_cast<long long>(s.in),
                    static_cast<long long>(s.out), type.c_str(), static_cast<long long>(tokens),
                    seconds / static_cast<double>(copies.size()) * 1e6, rate, 100 * rate / stream);
      }
    }
  }
}

void BenchGram(const Options& options, BackendRun& run) {
  std::printf("\nGram, tokens * in * (in + 1) flops\n");
  std::printf("%6s %7s %6s %10s %8s\n", "in", "tokens", "x", "GFLOP/s", "of peak");
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    // In F32, sums of parts wherever MatMul has them.
    const Compute compute = dtype == DType::kBF16 ? Compute::kBF16 : Compute::kBF16x3;
    const double peak = TilePeak(options, compute) * options.threads;
    for (const int64_t in : {576, 1536, 4096}) {
      for (const int64_t tokens : {512, 8192}) {
        const Tensor x = run.Empty(dtype, tokens, in);
        const Tensor gram = run.Empty(DType::kF32, in, in);
        Fill(x, 0.5);
        run.backend().Zero(run.exec(), gram);
        const double seconds =
            Fastest(options, options.threads, [&] { run.backend().AddGram(run.exec(), x, gram); });
        const double rate = static_cast<double>(tokens * in * (in + 1)) / seconds / 1e9;
        std::printf("%6lld %7lld %6s %10.0f %7.0f%%\n", static_cast<long long>(in),
                    static_cast<long long>(tokens), std::string(NameOf(dtype)).c_str(), rate,
                    100 * rate / peak);
      }
    }
  }
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--threads") options.threads = std::stoi(argv[i + 1]);
    if (flag == "--repeat") options.repeat = std::stoi(argv[i + 1]);
    if (flag == "--isa") options.isa = argv[i + 1];
    if (flag == "--clock") options.cpu_clock = std::string(argv[i + 1]) == "cpu";
    if (flag == "--only") options.only = argv[i + 1];
  }
  BackendRun run(CpuBackend(options.isa, options.threads));
  std::printf("%s, %d threads\n", options.isa.c_str(), options.threads);
  const auto wanted = [&](const char* name) {
    return options.only.empty() || options.only == name;
  };
  if (wanted("gemm")) BenchGemm(options, run);
  if (wanted("rounded")) BenchRounded(options, run);
  if (wanted("gemv")) BenchGemv(options, run);
  if (wanted("gram")) BenchGram(options, run);
  return 0;
}

}  // namespace
}  // namespace quantmill::test

int main(int argc, char** argv) { return quantmill::test::Main(argc, argv); }
