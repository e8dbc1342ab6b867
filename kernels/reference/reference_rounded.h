// MatMul with rounded inputs (ops.h), of the reference backend.
#ifndef QUANTMILL_KERNELS_REFERENCE_REFERENCE_ROUNDED_H_
#define QUANTMILL_KERNELS_REFERENCE_REFERENCE_ROUNDED_H_

#include "kernels/block_scaled_linear.h"
#include "kernels/ops.h"

namespace quantmill::reference {

class ReferenceRoundedLinear : public PackedLinear {
 public:
  ReferenceRoundedLinear(QuantizedLinear linear, Compute compute)
      : linear_(std::move(linear)), compute_(compute) {}
  int64_t out() const override { return linear_.out; }
  int64_t in() const override { return linear_.in; }
  int64_t bytes() const override { return linear_.out * linear_.in; }
  Compute compute() const override { return compute_; }
  const QuantizedLinear& linear() const { return linear_; }

 private:
  QuantizedLinear linear_;
  Compute compute_;
};

// The product alone: [tokens, out] F32. x: [tokens, in] F32|BF16.
Tensor RoundedProduct(ConstMatrix x, const QuantizedLinear& linear);

// x as ops.h rounds it where scales of groups are rounded too: of the type of x.
Tensor RoundedToBlocks(ConstMatrix x, const BlockRounding& rounding);

}  // namespace quantmill::reference

#endif  // QUANTMILL_KERNELS_REFERENCE_REFERENCE_ROUNDED_H_
