// A weight whose inputs are rounded in groups with scales that are rounded too ("rounded inputs" of
// ops.h), as every backend holds it: packed as for inputs that are left alone.
#ifndef QUANTMILL_KERNELS_BLOCK_SCALED_LINEAR_H_
#define QUANTMILL_KERNELS_BLOCK_SCALED_LINEAR_H_

#include <memory>
#include <utility>

#include "kernels/core/block_rounding.h"
#include "kernels/core/error.h"
#include "kernels/ops.h"

namespace quantmill {

class BlockScaledLinear final : public PackedLinear {
 public:
  // weight: `linear` packed by the backend whose MatMul gets this, its scheme's input ignored.
  BlockScaledLinear(std::unique_ptr<PackedLinear> weight, const QuantizedLinear& linear)
      : weight_(std::move(weight)) {
    const InputScheme& input = linear.scheme.input;
    Check(input.has_block_scales() && input.dynamic && input.symmetric && input.group_size > 0,
          "PackQuantized: block scales are dynamic, of groups, without zero points");
    Check(!input.has_global_scale() || linear.input_scale > 0,
          "PackQuantized: a global scale of inputs is above zero");
    rounding_ = {input.type == InputScheme::Type::kFp4, !input.has_global_scale(),
                 linear.input_scale, input.group_size};
  }
  int64_t out() const override { return weight_->out(); }
  int64_t in() const override { return weight_->in(); }
  int64_t bytes() const override { return weight_->bytes(); }
  Compute compute() const override { return weight_->compute(); }

  const PackedLinear& weight() const { return *weight_; }
  const BlockRounding& rounding() const { return rounding_; }

 private:
  std::unique_ptr<PackedLinear> weight_;
  BlockRounding rounding_;
};

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_BLOCK_SCALED_LINEAR_H_
