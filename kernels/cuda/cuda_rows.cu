// EmbedRows, AddRows, GatherRows and ScatterAdd of the cuda backend. Row indices are in host
// memory, are checked there, and travel with the call.
#include <cstring>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

template <typename T>
__global__ void GatherKernel(View<const T> x, const int32_t* rows, View<T> out) {
  ForEachElement(out.rows, out.cols,
                 [&](int64_t row, int64_t col) { out.Row(row)[col] = x.Row(rows[row])[col]; });
}

template <typename T>
__global__ void ScaleKernel(View<const T> x, float scale, View<float> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t row, int64_t col) {
    out.Row(row)[col] = scale * ToFloat(x.Row(row)[col]);
  });
}

template <typename T>
__global__ void AddRowsKernel(View<const T> table, const int32_t* rows, View<float> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t row, int64_t col) {
    out.Row(row)[col] += ToFloat(table.Row(rows[row])[col]);
  });
}

__global__ void ScatterAddKernel(View<const float> x, const int32_t* rows, const float* factors,
                                 View<float> y) {
  ForEachElement(x.rows, x.cols, [&](int64_t row, int64_t col) {
    float* to = y.Row(rows[row]) + col;
    *to = fmaf(factors[row], x.Row(row)[col], *to);
  });
}

}  // namespace

// The table is too large for the device, and may be a mapped file: its rows are gathered on the
// host.
void CudaBackend::EmbedRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids,
                            float scale, Matrix out) {
  CheckEmbedRows(table, ids, out);
  const Tensor gathered = HostTensor(table.dtype, out.rows, out.cols);
  const auto row_bytes = static_cast<size_t>(table.cols * SizeOf(table.dtype));
  for (int64_t t = 0; t < out.rows; ++t) {
    std::memcpy(gathered.view().Rows(t, 1).data, table.Rows(ids[static_cast<size_t>(t)], 1).data,
                row_bytes);
  }
  Workspace::Scope scope(exec.workspace);
  const Matrix landed = scope.Take(table.dtype, out.rows, out.cols);
  Upload(exec, gathered, landed);
  WithFloatType(table.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(exec, ScaleKernel<T>, Elementwise(out.rows, out.cols), In<T>(landed), scale,
           Out<float>(out));
  });
}

void CudaBackend::AddRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, Matrix out) {
  CheckAddRows(table, ids, out);
  Workspace::Scope scope(exec.workspace);
  const int32_t* rows = OnDevice(exec, scope, ids);
  WithFloatType(table.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(exec, AddRowsKernel<T>, Elementwise(out.rows, out.cols), In<T>(table), rows,
           Out<float>(out));
  });
}

void CudaBackend::GatherRows(Exec& exec, ConstMatrix x, std::span<const int32_t> rows, Matrix out) {
  CheckGatherRows(x, rows, out);
  Workspace::Scope scope(exec.workspace);
  const int32_t* on_device = OnDevice(exec, scope, rows);
  WithFloatType(x.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(exec, GatherKernel<T>, Elementwise(out.rows, out.cols), In<T>(x), on_device,
           Out<T>(out));
  });
}

void CudaBackend::ScatterAdd(Exec& exec, ConstMatrix x, std::span<const int32_t> rows,
                             std::span<const float> factors, Matrix y) {
  CheckScatterAdd(x, rows, factors, y);
  Workspace::Scope scope(exec.workspace);
  const int32_t* on_device = OnDevice(exec, scope, rows);
  const float* factors_on_device = OnDevice(exec, scope, factors);
  Launch(exec, ScatterAddKernel, Elementwise(x.rows, x.cols), In<float>(x), on_device,
         factors_on_device, Out<float>(y));
}

}  // namespace quantmill::QUANTMILL_CUDA
