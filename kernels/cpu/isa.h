// Instruction sets of the cpu backend, and how a kernel is compiled once for each.
//
// A source named *_isa.cc is compiled once per instruction set, with QUANTMILL_ISA defined to its
// name; it puts everything into namespace quantmill::cpu::QUANTMILL_ISA and exports one table of
// function pointers. Such a source includes only headers whose code is per-ISA too (simd.h) or
// declarations: an inline function of a shared header compiled with AVX-512 could be the copy that
// the linker keeps for every caller.
#ifndef QUANTMILL_KERNELS_CPU_ISA_H_
#define QUANTMILL_KERNELS_CPU_ISA_H_

#include <string_view>

namespace quantmill::cpu {

enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx };

std::string_view NameOf(Isa isa);

// Declares `extern const Table name` for each instruction set, and Select<Table>(isa) among them.
// Use inside namespace quantmill::cpu.
#define QUANTMILL_DECLARE_ISA_TABLE(Table, name) \
  namespace generic {                            \
  extern const Table name;                       \
  }                                              \
  namespace avx2 {                               \
  extern const Table name;                       \
  }                                              \
  namespace avx512 {                             \
  extern const Table name;                       \
  }                                              \
  namespace avx512_bf16 {                        \
  extern const Table name;                       \
  }                                              \
  namespace amx {                                \
  extern const Table name;                       \
  }                                              \
  const Table& Select##Table(Isa isa)

// Defines Select<Table>; once, in a source that is compiled once.
#define QUANTMILL_DEFINE_ISA_TABLE(Table, name) \
  const Table& Select##Table(Isa isa) {         \
    switch (isa) {                              \
      case Isa::kGeneric:                       \
        return generic::name;                   \
      case Isa::kAvx2:                          \
        return avx2::name;                      \
      case Isa::kAvx512:                        \
        return avx512::name;                    \
      case Isa::kAvx512Bf16:                    \
        return avx512_bf16::name;               \
      case Isa::kAmx:                           \
        return amx::name;                       \
    }                                           \
    return generic::name;                       \
  }

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_ISA_H_
