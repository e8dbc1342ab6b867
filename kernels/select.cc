#include "kernels/select.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <cstdlib>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/reference_backend.h"
#ifdef QUANTMILL_CUDA
#include "kernels/cuda/open_cuda.h"
#endif

namespace quantmill {
namespace {

using cpu::Isa;

constexpr std::array kIsasBestFirst = {Isa::kAmx, Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2,
                                       Isa::kGeneric};

#if defined(__x86_64__)
// __builtin_cpu_supports of Clang 16 does not know "f16c". (That the system saves the registers,
// the answer for AVX2 covers.)
bool HasF16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

#if defined(__x86_64__) && defined(__linux__)
// Whether the processor has AMX with BF16, and the system lets this process use its tiles: it has
// to be asked once, before the first thread that uses them is made.
bool HasAmx() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kTiles = 1u << 24;
  constexpr unsigned kBf16 = 1u << 22;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTiles) == 0 || (edx & kBf16) == 0) return false;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}
#else
bool HasAmx() { return false; }
#endif

// What the compiler flags of kernels/CMakeLists.txt let each instruction set use.
bool IsAvailable(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool bf16 =
      avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  switch (isa) {
    case Isa::kGeneric:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx512Bf16:
      return bf16;
    case Isa::kAmx:
      return bf16 && HasAmx();
  }
#endif
  return isa == Isa::kGeneric;
}

// Throws unless `name` is an instruction set of this machine.
Isa FindIsa(std::string_view name, const std::string& where) {
  std::string known;
  for (const Isa isa : kIsasBestFirst) {
    if (NameOf(isa) == name) {
      if (IsAvailable(isa)) return isa;
      std::string available;
      for (const std::string& other : AvailableIsas()) available.append(" ").append(other);
      throw Error(ErrorCode::kEnvironment, where,
                  "this machine cannot run '" + std::string(name) + "'; it can run:" + available);
    }
    known.append(" ").append(NameOf(isa));
  }
  throw Error(ErrorCode::kUsage, where,
              "unknown instruction set '" + std::string(name) + "'; known:" + known);
}

Isa ChooseIsa() {
  const char* forced = std::getenv("QUANTMILL_ISA");
  if (forced != nullptr && *forced != '\0') return FindIsa(forced, "QUANTMILL_ISA");
  for (const Isa isa : kIsasBestFirst) {
    if (IsAvailable(isa)) return isa;
  }
  return Isa::kGeneric;
}

int ThreadsOrAll(int threads) {
  Check(threads >= 0, "SelectBackend: negative number of threads");
  return threads == 0 ? AvailableCpus() : threads;
}

}  // namespace

std::unique_ptr<Backend> SelectBackend(std::string_view device, int threads) {
#ifdef QUANTMILL_CUDA
  if (device == "cuda") return cuda::OpenCuda(ThreadsOrAll(threads));
  if (device == "auto" && cuda::HasDevice()) return cuda::OpenCuda(ThreadsOrAll(threads));
#else
  if (device == "cuda") {
    throw Error(ErrorCode::kEnvironment, "--device cuda",
                "this build has no CUDA backend; use --device cpu, or a build with CUDA");
  }
#endif
  if (device != "auto" && device != "cpu") {
    throw Error(ErrorCode::kUsage, "--device",
                "unknown device '" + std::string(device) + "'; known: auto, cpu, cuda");
  }
  return std::make_unique<cpu::CpuBackend>(ChooseIsa(), ThreadsOrAll(threads));
}

std::unique_ptr<Backend> ReferenceBackend() {
  return std::make_unique<reference::ReferenceBackend>();
}

std::vector<std::string> AvailableIsas() {
  std::vector<std::string> names;
  for (const Isa isa : kIsasBestFirst) {
    if (IsAvailable(isa)) names.emplace_back(NameOf(isa));
  }
  return names;
}

std::unique_ptr<Backend> CpuBackend(std::string_view isa, int threads) {
  return std::make_unique<cpu::CpuBackend>(FindIsa(isa, "instruction set"), ThreadsOrAll(threads));
}

std::vector<std::string> BuiltBackends() {
#ifdef QUANTMILL_CUDA
  return {"cpu", "cuda"};
#else
  return {"cpu"};
#endif
}

}  // namespace quantmill
