// Weights of linear layers in device memory.
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_LINEAR_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_LINEAR_H_

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"

namespace quantmill::QUANTMILL_CUDA {

class CudaLinear : public PackedLinear {
 public:
  // Rows [first, first + count) of the weight in ActivationType(compute()), decoded into memory of
  // `scope` unless they are stored so. [count, in].
  virtual ConstMatrix Rows(Exec& exec, Workspace::Scope& scope, int64_t first,
                           int64_t count) const = 0;
  // Whether Rows takes memory.
  virtual bool decodes() const = 0;
};

// Floats as they came (kF32), or rounded to BF16.
class DenseLinear final : public CudaLinear {
 public:
  DenseLinear(Tensor weight, Compute compute) : weight_(std::move(weight)), compute_(compute) {}
  int64_t out() const override { return weight_.rows(); }
  int64_t in() const override { return weight_.cols(); }
  int64_t bytes() const override { return weight_.bytes(); }
  Compute compute() const override { return compute_; }
  ConstMatrix Rows(Exec& exec, Workspace::Scope& scope, int64_t first,
                   int64_t count) const override;
  bool decodes() const override { return weight_.dtype() != ActivationType(compute_); }

 private:
  Tensor weight_;
  Compute compute_;
};

// The codes of a DeviceCodes, or rows of them, as kernels take them.
struct CodesView {
  View<const uint8_t> codes;
  const float* numbers;
  View<const float> scales;
  View<const int8_t> zero_points;  // data is null where there are none
  int64_t group_size;
  bool two_in_a_byte;

  // number - zero_point of a weight: exact.
  __device__ float Number(int64_t row, int64_t i) const {
    const uint8_t* from = codes.Row(row);
    const int stored = !two_in_a_byte ? from[i] : i % 2 == 0 ? from[i / 2] & 15 : from[i / 2] >> 4;
    const float number = numbers[stored];
    if (zero_points.data == nullptr) return number;
    const int64_t group = i / group_size;
    return number - static_cast<float>(zero_points.Row(row)[group]);
  }
};

// Codes of any scheme: value = (number(code) - zero_point) * effective scale.
struct DeviceCodes {
  QuantScheme scheme;
  int64_t in = 0;
  Tensor codes;  // [out, bytes of a row] U8: a byte a code, or two codes of up to 4 bits, low first
  Tensor numbers;      // [1, 256] F32: what a stored code stands for
  Tensor scales;       // [out, groups] F32, effective
  Tensor zero_points;  // [out, groups] I8, or empty

  bool two_in_a_byte() const { return scheme.bits <= 4; }
  CodesView Rows(int64_t first, int64_t count) const;
  int64_t bytes() const {
    return codes.bytes() + numbers.bytes() + scales.bytes() + zero_points.bytes();
  }
};

class CodesLinear final : public CudaLinear {
 public:
  CodesLinear(DeviceCodes codes, Compute compute) : codes_(std::move(codes)), compute_(compute) {}
  int64_t out() const override { return codes_.codes.rows(); }
  int64_t in() const override { return codes_.in; }
  int64_t bytes() const override { return codes_.bytes(); }
  Compute compute() const override { return compute_; }
  ConstMatrix Rows(Exec& exec, Workspace::Scope& scope, int64_t first,
                   int64_t count) const override;
  bool decodes() const override { return true; }

 private:
  DeviceCodes codes_;
  Compute compute_;
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_LINEAR_H_
