#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {
namespace {

// Elements that one task copies or clears: enough to pay for waking a thread.
constexpr int64_t kTaskElements = int64_t{1} << 18;

// Rows per task of an elementwise op on `rows` rows of `cols` elements.
int64_t RowsPerTask(int64_t cols) { return std::max<int64_t>(1, kTaskElements / (cols + 1)); }

template <typename From, typename To>
void ConvertRow(const From* from, To* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<To, float>) {
      to[i] = ToFloat(from[i]);
    } else if constexpr (std::is_same_v<To, F16>) {
      to[i] = ToF16(ToFloat(from[i]));
    } else {
      to[i] = ToBF16(ToFloat(from[i]));
    }
  }
}

template <typename From>
void ConvertRowTo(const From* from, Matrix to, int64_t row) {
  switch (to.dtype) {
    case DType::kF32:
      return ConvertRow(from, to.Row<float>(row), to.cols);
    case DType::kF16:
      return ConvertRow(from, to.Row<F16>(row), to.cols);
    case DType::kBF16:
      return ConvertRow(from, to.Row<BF16>(row), to.cols);
    default:
      Check(false, "Upload, Download: conversion to a type that is not a dense float");
  }
}

void CopyRow(ConstMatrix from, Matrix to, int64_t row) {
  if (from.dtype == to.dtype) {
    const int64_t size = SizeOf(from.dtype);
    std::memcpy(static_cast<std::byte*>(to.data) + row * to.stride * size,
                static_cast<const std::byte*>(from.data) + row * from.stride * size,
                static_cast<size_t>(from.cols * size));
    return;
  }
  switch (from.dtype) {
    case DType::kF32:
      return ConvertRowTo(from.Row<float>(row), to, row);
    case DType::kF16:
      return ConvertRowTo(from.Row<F16>(row), to, row);
    case DType::kBF16:
      return ConvertRowTo(from.Row<BF16>(row), to, row);
    default:
      Check(false, "Upload, Download: conversion from a type that is not a dense float");
  }
}

void Copy(Exec& exec, ConstMatrix from, Matrix to) {
  Check(from.rows == to.rows && from.cols == to.cols, "Upload, Download, Convert: shapes differ");
  if (from.size() == 0) return;
  const int64_t rows = RowsPerTask(from.cols);
  PoolOf(exec).ParallelFor((from.rows + rows - 1) / rows, [&](int64_t task, int) {
    const int64_t end = std::min(from.rows, (task + 1) * rows);
    for (int64_t r = task * rows; r < end; ++r) CopyRow(from, to, r);
  });
}

}  // namespace

BackendInfo CpuBackend::Info() const {
  return {.name = "cpu",
          .isa = std::string(NameOf(isa_)),
          .compute_bf16 = isa_ == Isa::kAvx512Bf16 || isa_ == Isa::kAmx,
          .splits_f32 = SelectMatMulKernels(isa_).bf16x3.tile != nullptr,
          .threads = pool_.threads()};
}

std::unique_ptr<Stream> CpuBackend::NewStream() { return std::make_unique<CpuStream>(pool_); }

Tensor CpuBackend::Empty(DType dtype, int64_t rows, int64_t cols) {
  return HostTensor(dtype, rows, cols);
}

void CpuBackend::Upload(Exec& exec, ConstMatrix host, Matrix device) { Copy(exec, host, device); }

void CpuBackend::Download(Exec& exec, ConstMatrix device, Matrix host) { Copy(exec, device, host); }

void CpuBackend::Convert(Exec& exec, ConstMatrix x, Matrix out) {
  CheckConvert(x, out);
  Copy(exec, x, out);
}

void CpuBackend::Zero(Exec& exec, Matrix x) {
  if (x.size() == 0) return;
  const int64_t size = SizeOf(x.dtype);
  const int64_t rows = RowsPerTask(x.cols);
  PoolOf(exec).ParallelFor((x.rows + rows - 1) / rows, [&](int64_t task, int) {
    const int64_t end = std::min(x.rows, (task + 1) * rows);
    for (int64_t r = task * rows; r < end; ++r) {
      std::memset(static_cast<std::byte*>(x.data) + r * x.stride * size, 0,
                  static_cast<size_t>(x.cols * size));
    }
  });
}

}  // namespace quantmill::cpu
