// A weight whose inputs are rounded before they are multiplied ("rounded inputs" of ops.h).
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_ROUNDED_LINEAR_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_ROUNDED_LINEAR_H_

#include "kernels/cuda/cuda_linear.h"

namespace quantmill::QUANTMILL_CUDA {

class RoundedLinear final : public PackedLinear {
 public:
  RoundedLinear(DeviceCodes codes, float input_scale, int8_t input_zero_point, Compute compute)
      : codes_(std::move(codes)),
        input_scale_(input_scale),
        input_zero_point_(input_zero_point),
        compute_(compute) {}
  int64_t out() const override { return codes_.codes.rows(); }
  int64_t in() const override { return codes_.in; }
  int64_t bytes() const override { return codes_.bytes(); }
  Compute compute() const override { return compute_; }

  // MatMul of ops.h; shapes are checked.
  void Multiply(Exec& exec, ConstMatrix x, ConstMatrix bias, MatMulMode mode, Matrix y) const;

 private:
  DeviceCodes codes_;
  float input_scale_;
  int8_t input_zero_point_;
  Compute compute_;
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_ROUNDED_LINEAR_H_
