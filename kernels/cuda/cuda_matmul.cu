// MatMul of the cuda backend: a library product with the weight, which is decoded first, some rows
// at a time, where it is not kept as it is multiplied.
#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/block_rounding.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_rounded_linear.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// Elements of a weight that are decoded at once: whole layers of most models, and slices of a head
// over a large vocabulary.
constexpr int64_t kDecodedElements = int64_t{1} << 26;

template <typename T>
__global__ void StoreKernel(View<const float> sums, const float* bias, View<T> y) {
  ForEachElement(y.rows, y.cols, [&](int64_t row, int64_t o) {
    const float sum = sums.Row(row)[o];
    y.Row(row)[o] = FromFloat<T>(bias == nullptr ? sum : sum + bias[o]);
  });
}

// y (+)= x w^T + bias, w: [y.cols, in].
void Multiply(Exec& exec, ConstMatrix x, ConstMatrix w, ConstMatrix bias, MatMulMode mode,
              Matrix y) {
  const float* added = bias.size() == 0 ? nullptr : bias.Row<float>(0);
  if (y.dtype == DType::kF32) {
    Gemm(exec, Transpose::kNo, x, Transpose::kYes, w, mode == MatMulMode::kAdd ? 1.0f : 0.0f, y);
    if (added == nullptr) return;
    Launch(exec, StoreKernel<float>, Elementwise(y.rows, y.cols), In<float>(y), added,
           Out<float>(y));
    return;
  }
  Workspace::Scope scope(exec.workspace);
  const Matrix sums = scope.Take(DType::kF32, y.rows, y.cols);
  Gemm(exec, Transpose::kNo, x, Transpose::kYes, w, 0, sums);
  Launch(exec, StoreKernel<BF16>, Elementwise(y.rows, y.cols), In<float>(sums), added,
         Out<BF16>(y));
}

}  // namespace

void CudaBackend::MatMul(Exec& exec, ConstMatrix x, const PackedLinear& w, ConstMatrix bias,
                         MatMulMode mode, Matrix y) {
  CheckMatMul(x, w, bias, mode, y);
  if (const auto* rounded = dynamic_cast<const RoundedLinear*>(&w); rounded != nullptr) {
    return rounded->Multiply(exec, x, bias, mode, y);
  }
  if (const auto* scaled = dynamic_cast<const BlockScaledLinear*>(&w); scaled != nullptr) {
    Workspace::Scope scope(exec.workspace);
    const Matrix rounded_x = scope.Take(x.dtype, x.rows, x.cols);
    RoundToBlocks(exec, x, scaled->rounding(), rounded_x);
    return MatMul(exec, rounded_x, scaled->weight(), bias, mode, y);
  }
  const auto& linear = static_cast<const CudaLinear&>(w);
  const int64_t step = linear.decodes()
                           ? std::max<int64_t>(1, kDecodedElements / std::max<int64_t>(1, w.in()))
                           : std::max<int64_t>(1, w.out());
  for (int64_t first = 0; first < w.out(); first += step) {
    const int64_t count = std::min(step, w.out() - first);
    Workspace::Scope scope(exec.workspace);
    Multiply(exec, x, linear.Rows(exec, scope, first, count),
             bias.size() == 0 ? bias : bias.Cols(first, count), mode, y.Cols(first, count));
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
