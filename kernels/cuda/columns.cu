#include "kernels/cuda/columns.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// The side in the other order is read (or written) at random within a row, which the L2 cache
// holds.
__global__ void GatherColumnsKernel(View<const float> from, const int32_t* order, View<float> to) {
  ForEachElement(to.rows, to.cols,
                 [&](int64_t row, int64_t k) { to.Row(row)[k] = from.Row(row)[order[k]]; });
}

__global__ void ScatterColumnsKernel(View<const float> from, const int32_t* order, View<float> to) {
  ForEachElement(to.rows, to.cols,
                 [&](int64_t row, int64_t k) { to.Row(row)[order[k]] = from.Row(row)[k]; });
}

}  // namespace

void GatherColumns(Exec& exec, ConstMatrix from, const int32_t* order, Matrix to) {
  Launch(exec, GatherColumnsKernel, Elementwise(to.rows, to.cols), In<float>(from), order,
         Out<float>(to));
}

void ScatterColumns(Exec& exec, ConstMatrix from, const int32_t* order, Matrix to) {
  Launch(exec, ScatterColumnsKernel, Elementwise(to.rows, to.cols), In<float>(from), order,
         Out<float>(to));
}

}  // namespace quantmill::QUANTMILL_CUDA
