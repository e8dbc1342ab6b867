// A weight whose inputs are rounded before they are multiplied, as the cpu backend holds it.
#ifndef QUANTMILL_KERNELS_CPU_CPU_ROUNDED_LINEAR_H_
#define QUANTMILL_KERNELS_CPU_CPU_ROUNDED_LINEAR_H_

#include <memory>

#include "kernels/cpu/cpu_linear.h"
#include "kernels/cpu/rounded_kernels.h"
#include "kernels/ops.h"

namespace quantmill::cpu {

// Runs of inputs in which no scale changes.
struct Segments {
  int64_t inputs = 0;      // of each but the last one
  int64_t count = 0;       // at least 1
  int64_t per_weight = 0;  // segments that share a scale of the weight
  int64_t per_input = 0;   // of the input
};
// Aborts (Check) unless the larger of the two group sizes is a multiple of the smaller, or the row.
Segments SegmentsOf(const QuantScheme& scheme, int64_t in);

// Tables hold a value for each column of a panel, padding included.
class CpuRoundedLinear : public PackedLinear {
 public:
  CpuRoundedLinear(const QuantizedLinear& linear, Compute compute, int64_t panel_cols);

  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  int64_t bytes() const override;
  Compute compute() const override { return compute_; }

  int64_t panels() const { return scales_.rows(); }
  const InputScheme& input() const { return input_; }
  bool integers() const { return input_.type == InputScheme::Type::kInt8; }
  float input_scale() const { return input_scale_; }
  int input_zero() const { return input_zero_; }
  const Segments& segments() const { return segments_; }
  bool has_zeros() const { return !zeros_.empty(); }

  // Integers: quads of one segment of a panel.
  int64_t segment_quads() const { return CeilDiv(segments_.inputs, 4); }
  int8_t* Quads(int64_t panel, int64_t segment) const {
    return quads_.Row<int8_t>(panel) + segment * segment_quads() * panel_cols_ * 4;
  }
  // Numbers: panels whose scales are 1.
  const CpuLinear& numbers() const { return *numbers_; }

  float* Scales(int64_t panel, int64_t segment) const {
    return scales_.Row<float>(panel) + segment / segments_.per_weight * panel_cols_;
  }
  int32_t* Zeros(int64_t panel, int64_t segment) const {
    return zeros_.Row<int32_t>(panel) + segment / segments_.per_weight * panel_cols_;
  }
  int32_t* Offsets(int64_t panel, int64_t segment) const {
    return offsets_.Row<int32_t>(panel) + segment * panel_cols_;
  }

  // Fill panel `panel`.
  void PackTables(const QuantizedLinear& linear, int64_t panel) const;
  void PackQuads(const QuantizedLinear& linear, int64_t panel, int byte_offset) const;
  void TakeNumbers(std::unique_ptr<CpuLinear> numbers) { numbers_ = std::move(numbers); }

 private:
  int64_t out_;
  int64_t in_;
  Compute compute_;
  int64_t panel_cols_;
  InputScheme input_;
  float input_scale_;
  int input_zero_;
  Segments segments_;
  Tensor quads_;    // [panels, bytes of a panel] I8; integers alone
  Tensor scales_;   // [panels, groups * panel_cols] F32, of the weight
  Tensor zeros_;    // likewise I32, of asymmetric integers under integer inputs
  Tensor offsets_;  // [panels, segments * panel_cols] I32, integers alone: FoldArgs::offsets
  std::unique_ptr<CpuLinear> numbers_;  // null for integers
};

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_CPU_ROUNDED_LINEAR_H_
