// Packing weights into panels, EmbedRows and AddRows.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_linear.h"
#include "kernels/cpu/cpu_rounded_linear.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

PanelType DensePanelType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PanelType::kF32;
    case DType::kF16:
      return PanelType::kF16;
    case DType::kBF16:
      return PanelType::kBF16;
    default:
      Check(false, "a weight is F32, F16 or BF16");
      return PanelType::kF32;
  }
}

int64_t InputBytes(PanelType type, int64_t inputs, int64_t panel_cols) {
  switch (type) {
    case PanelType::kF32:
      return inputs * panel_cols * 4;
    case PanelType::kF16:
    case PanelType::kBF16:
      return inputs * panel_cols * 2;
    case PanelType::kBF16Pairs:
      return RoundUp(inputs, 2) * panel_cols * 2;
    case PanelType::kI8:
    case PanelType::kF8:
      return inputs * panel_cols;
    case PanelType::kI4:
    case PanelType::kF4:
    case PanelType::kIq4Nl:
      return inputs * panel_cols / 2;
  }
  return 0;
}

namespace {

// Panels of hundreds of kilobytes are read in order: large pages save most of the TLB misses.
void PreferLargePages(Matrix m) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 4096;
  const auto address = reinterpret_cast<uintptr_t>(m.data);
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage;
  const uintptr_t end = (address + static_cast<uintptr_t>(m.size())) / kPage * kPage;
  if (end <= begin) return;
  // A hint: where it fails, nothing but speed is lost.
  madvise(static_cast<std::byte*>(m.data) + (begin - address), end - begin, MADV_HUGEPAGE);
#endif
}

// Inputs of one panel copied at a time: the block's rows and its transpose both stay in L1.
constexpr int64_t kPackInputs = 32;

// The panel of outputs [first, first + panel_cols): convert(weight[first + c, i]) at row i, column
// c, zero for outputs past the end.
template <typename From, typename To, typename Convert>
void PackPanel(ConstMatrix weight, int64_t first, int64_t panel_cols, To* panel,
               const Convert& convert) {
  const int64_t in = weight.cols;
  const int64_t cols = std::min(panel_cols, weight.rows - first);
  if (cols < panel_cols) std::fill(panel, panel + in * panel_cols, To{});
  for (int64_t begin = 0; begin < in; begin += kPackInputs) {
    const int64_t end = std::min(in, begin + kPackInputs);
    for (int64_t c = 0; c < cols; ++c) {
      const From* row = weight.Row<From>(first + c);
      for (int64_t i = begin; i < end; ++i) panel[i * panel_cols + c] = convert(row[i]);
    }
  }
}

// The BF16 instructions take subnormal inputs as zeros when they multiply, and when they convert
// (codes are converted so). Doing the same here keeps dense and quantized weights equal. F16 has no
// numbers that small, and those of BF16 need no conversion.
uint16_t PairElement(float x) {
  return ToBF16(std::abs(x) < std::numeric_limits<float>::min() ? 0.0f : x).bits;
}
uint16_t PairElement(F16 x) { return ToBF16(ToFloat(x)).bits; }
uint16_t PairElement(BF16 x) { return x.bits; }

// PackPanel for pairs of inputs: (2i, 2i + 1) at row i, the even one in the low half; zero past
// the end.
template <typename From>
void PackPairs(ConstMatrix weight, int64_t first, int64_t panel_cols, uint32_t* panel) {
  const int64_t in = weight.cols;
  const int64_t cols = std::min(panel_cols, weight.rows - first);
  if (cols < panel_cols) std::fill(panel, panel + CeilDiv(in, 2) * panel_cols, 0u);
  static_assert(kPackInputs % 2 == 0);
  for (int64_t begin = 0; begin < in; begin += kPackInputs) {
    const int64_t end = std::min(in, begin + kPackInputs);
    for (int64_t c = 0; c < cols; ++c) {
      const From* row = weight.Row<From>(first + c);
      for (int64_t i = begin; i < end; i += 2) {
        const uint32_t odd = i + 1 < end ? PairElement(row[i + 1]) : 0u;
        panel[i / 2 * panel_cols + c] = PairElement(row[i]) | (odd << 16);
      }
    }
  }
}

template <typename From>
void PackDensePanel(ConstMatrix weight, int64_t first, int64_t panel_cols, const CpuLinear& linear,
                    uint8_t* panel) {
  if (linear.type() == PanelType::kBF16Pairs) {
    PackPairs<From>(weight, first, panel_cols, reinterpret_cast<uint32_t*>(panel));
  } else if (linear.compute() == Compute::kBF16) {
    PackPanel<From>(weight, first, panel_cols, reinterpret_cast<BF16*>(panel),
                    [](From x) { return ToBF16(ToFloat(x)); });
  } else {
    PackPanel<From>(weight, first, panel_cols, reinterpret_cast<From*>(panel),
                    [](From x) { return x; });
  }
}

// The panel of 4-bit codes that starts at output `first`; `zero` is added to the codes.
void PackNibbles(const QuantizedLinear& linear, int zero, int64_t first, int64_t panel_cols,
                 uint8_t* panel) {
  const int64_t half = panel_cols / 2;
  // Code 0 in both halves.
  std::fill(panel, panel + linear.in * half, static_cast<uint8_t>(zero * 0x11));
  const int64_t cols = std::min(panel_cols, linear.out - first);
  for (int64_t begin = 0; begin < linear.in; begin += kPackInputs) {
    const int64_t end = std::min(linear.in, begin + kPackInputs);
    for (int64_t c = 0; c < cols; ++c) {
      const int8_t* row = linear.codes.data() + (first + c) * linear.in;
      const int shift = c < half ? 0 : 4;
      for (int64_t i = begin; i < end; ++i) {
        uint8_t& byte = panel[i * half + c % half];
        const int code = (row[i] + zero) & 15;
        byte = static_cast<uint8_t>((byte & (0xF0 >> shift)) | (code << shift));
      }
    }
  }
}

void StoreScale(DType dtype, float scale, std::byte* to) {
  if (dtype == DType::kF32) std::memcpy(to, &scale, sizeof(scale));
  if (dtype == DType::kF16) {
    const F16 half = ToF16(scale);
    std::memcpy(to, &half, sizeof(half));
  }
  if (dtype == DType::kBF16) {
    const BF16 half = ToBF16(scale);
    std::memcpy(to, &half, sizeof(half));
  }
}

// What the codes of a panel are multiplied by: their scales, or 1, so that they stay numbers.
enum class PanelScales : uint8_t { kOwn, kOnes };

// Scales and zero points of the panel, transposed to [groups][panel_cols].
void PackGrid(const QuantizedLinear& linear, PanelScales scales, int64_t panel, int64_t panel_cols,
              const CpuLinear& packed) {
  const DType dtype = packed.scale_dtype();
  const int64_t groups = linear.groups();
  const int64_t first = panel * panel_cols;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t c = 0; c < panel_cols; ++c) {
      const bool exists = first + c < linear.out;
      const int64_t to = g * panel_cols + c;
      float scale = scales == PanelScales::kOnes ? 1.0f : 0.0f;
      if (exists && scales == PanelScales::kOwn) scale = linear.EffectiveScale(first + c, g);
      StoreScale(dtype, scale, packed.Scales(panel) + to * SizeOf(dtype));
      if (linear.scheme.symmetric) continue;
      const auto from = static_cast<size_t>(exists ? (first + c) * groups + g : 0);
      packed.Zeros(panel)[to] = exists ? linear.zero_points[from] : int8_t{0};
    }
  }
}

PanelType CodePanelType(const QuantScheme& scheme) {
  switch (scheme.code_type) {
    case CodeType::kFp8:
      return PanelType::kF8;
    case CodeType::kFp4:
      return PanelType::kF4;
    case CodeType::kIq4Nl:
      return PanelType::kIq4Nl;
    case CodeType::kInt:
      break;
  }
  return scheme.bits <= 4 ? PanelType::kI4 : PanelType::kI8;
}

// NaN among the codes, of a file that is broken.
bool HasNaN(const QuantizedLinear& linear) {
  return linear.scheme.code_type == CodeType::kFp8 &&
         std::any_of(linear.codes.begin(), linear.codes.end(),
                     [](int8_t code) { return (code & 0x7F) == 0x7F; });
}

std::unique_ptr<CpuLinear> PackCodes(ThreadPool& pool, const QuantizedLinear& linear,
                                     PanelScales scales, Compute compute, int64_t panel_cols) {
  const PanelType type = CodePanelType(linear.scheme);
  auto packed = std::make_unique<CpuLinear>(linear.out, linear.in, compute, type, panel_cols);
  PreferLargePages(packed->values());
  // Pairs are rounded as they are made; without them F32 tiles multiply rounded values. Numbers
  // are exact in both.
  packed->AddGrid(linear.scheme, panel_cols,
                  compute == Compute::kBF16 && scales == PanelScales::kOwn);
  const ConstMatrix codes = ViewOf(linear.codes.data(), linear.out, linear.in);
  pool.ParallelFor(packed->panels(), [&](int64_t p, int) {
    if (type == PanelType::kI4 || type == PanelType::kF4 || type == PanelType::kIq4Nl) {
      PackNibbles(linear, type == PanelType::kI4 ? 8 : 0, p * panel_cols, panel_cols,
                  packed->Values(p));
    } else {
      PackPanel<int8_t>(codes, p * panel_cols, panel_cols,
                        reinterpret_cast<int8_t*>(packed->Values(p)), [](int8_t c) { return c; });
    }
    PackGrid(linear, scales, p, panel_cols, *packed);
  });
  return packed;
}

std::unique_ptr<CpuRoundedLinear> PackRounded(ThreadPool& pool, const QuantizedLinear& linear,
                                              Compute compute, int64_t panel_cols,
                                              StepType integer_step) {
  auto packed = std::make_unique<CpuRoundedLinear>(linear, compute, panel_cols);
  if (!packed->integers()) {
    packed->TakeNumbers(PackCodes(pool, linear, PanelScales::kOnes, compute, panel_cols));
  }
  const int byte_offset = integer_step == StepType::kBytes ? kByteOffset : 0;
  pool.ParallelFor(packed->panels(), [&](int64_t p, int) {
    packed->PackTables(linear, p);
    if (packed->integers()) packed->PackQuads(linear, p, byte_offset);
  });
  return packed;
}

}  // namespace

std::unique_ptr<PackedLinear> CpuBackend::PackDense(Exec& exec, ConstMatrix weight,
                                                    Compute compute) {
  const MatMulKernels& kernels = SelectMatMulKernels(isa_);
  PanelType type = DensePanelType(weight.dtype);
  if (compute == Compute::kBF16) {
    type = kernels.bf16.tile != nullptr ? PanelType::kBF16Pairs : PanelType::kBF16;
  }
  const int64_t panel_cols = kernels.panel_cols;
  auto packed = std::make_unique<CpuLinear>(weight.rows, weight.cols, compute, type, panel_cols);
  PreferLargePages(packed->values());
  PoolOf(exec).ParallelFor(packed->panels(), [&](int64_t p, int) {
    const int64_t first = p * panel_cols;
    switch (weight.dtype) {
      case DType::kF32:
        return PackDensePanel<float>(weight, first, panel_cols, *packed, packed->Values(p));
      case DType::kF16:
        return PackDensePanel<F16>(weight, first, panel_cols, *packed, packed->Values(p));
      default:
        return PackDensePanel<BF16>(weight, first, panel_cols, *packed, packed->Values(p));
    }
  });
  return packed;
}

std::unique_ptr<PackedLinear> CpuBackend::PackQuantized(Exec& exec, const QuantizedLinear& linear,
                                                        Compute compute) {
  CheckConsistent(linear);
  const MatMulKernels& kernels = SelectMatMulKernels(isa_);
  const int64_t panel_cols = kernels.panel_cols;
  // Kept, but not worth a comparison in the kernels. (Its outputs are NaN, rounded inputs or not.)
  if (HasNaN(linear)) {
    const Tensor weight = HostTensor(DType::kF32, linear.out, linear.in);
    Dequantize(linear, weight);
    return PackDense(exec, weight, compute);
  }
  const InputScheme& input = linear.scheme.input;
  if (input.type != InputScheme::Type::kNone && !input.has_block_scales()) {
    return PackRounded(PoolOf(exec), linear, compute, panel_cols,
                       SelectRoundedKernels(isa_).integer_step);
  }
  auto packed = PackCodes(PoolOf(exec), linear, PanelScales::kOwn, compute, panel_cols);
  if (!input.has_block_scales()) return packed;
  return std::make_unique<BlockScaledLinear>(std::move(packed), linear);
}

void CpuBackend::EmbedRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, float scale,
                           Matrix out) {
  CheckEmbedRows(table, ids, out);
  if (out.size() == 0) return;
  const MatMulKernels& kernels = SelectMatMulKernels(isa_);
  const PanelType type = DensePanelType(table.dtype);
  constexpr int64_t kRows = 64;  // per task
  PoolOf(exec).ParallelFor(CeilDiv(out.rows, kRows), [&](int64_t task, int) {
    const int64_t end = std::min(out.rows, (task + 1) * kRows);
    for (int64_t t = task * kRows; t < end; ++t) {
      const ConstMatrix row = table.Rows(ids[static_cast<size_t>(t)], 1);
      kernels.widen(type, row.data, scale, out.cols, out.Row<float>(t));
    }
  });
}

void CpuBackend::AddRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, Matrix out) {
  CheckAddRows(table, ids, out);
  if (out.size() == 0) return;
  const MatMulKernels& kernels = SelectMatMulKernels(isa_);
  const PanelType type = DensePanelType(table.dtype);
  ThreadPool& pool = PoolOf(exec);
  Workspace::Scope scope(exec.workspace);
  const Matrix wide = scope.Take(DType::kF32, pool.threads(), out.cols);
  pool.ParallelFor(out.rows, [&](int64_t t, int thread) {
    auto* row = wide.Row<float>(thread);
    kernels.widen(type, table.Rows(ids[static_cast<size_t>(t)], 1).data, 1.0f, out.cols, row);
    auto* sum = out.Row<float>(t);
    for (int64_t i = 0; i < out.cols; ++i) sum[i] += row[i];
  });
}

}  // namespace quantmill::cpu
