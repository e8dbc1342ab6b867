// Chooses a backend. select.cc is the only file that knows all of them.
#ifndef QUANTMILL_KERNELS_SELECT_H_
#define QUANTMILL_KERNELS_SELECT_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"

namespace quantmill {

// device: "auto", "cpu" or "cuda". threads: 0 = all available CPUs. The environment variable
// QUANTMILL_ISA (generic, avx2, avx512, avx512_bf16, amx) forces an instruction set of the cpu
// backend. Throws Error(kUsage) for an unknown name, Error(kEnvironment) for what this machine or
// build does not have.
std::unique_ptr<Backend> SelectBackend(std::string_view device, int threads);

// Plain double-precision loops, for tests.
std::unique_ptr<Backend> ReferenceBackend();

// Instruction sets of the cpu backend that this machine can run, best first.
std::vector<std::string> AvailableIsas();
// A cpu backend for one of them.
std::unique_ptr<Backend> CpuBackend(std::string_view isa, int threads);

// Backends compiled into this binary: "cpu", and "cuda" where it was built.
std::vector<std::string> BuiltBackends();

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_SELECT_H_
