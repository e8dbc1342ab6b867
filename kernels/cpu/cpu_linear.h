// A weight packed into panels (matmul_kernels.h), as the cpu backend holds it.
#ifndef QUANTMILL_KERNELS_CPU_CPU_LINEAR_H_
#define QUANTMILL_KERNELS_CPU_CPU_LINEAR_H_

#include <algorithm>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_plan.h"
#include "kernels/ops.h"

namespace quantmill::cpu {

// The panel type that keeps the elements of a dense matrix as they are.
PanelType DensePanelType(DType dtype);

// Bytes of `inputs` inputs of a panel (even, or all of them, for pairs).
int64_t InputBytes(PanelType type, int64_t inputs, int64_t panel_cols);

// Panels start at whole cache lines.
class CpuLinear : public PackedLinear {
 public:
  CpuLinear(int64_t out, int64_t in, Compute compute, PanelType type, int64_t panel_cols)
      : out_(out),
        in_(in),
        compute_(compute),
        panels_(CeilDiv(out, panel_cols)),
        values_(HostTensor(DType::kU8, panels_, RoundUp(InputBytes(type, in, panel_cols), 64))) {
    panel_.type = type;
  }

  int64_t out() const override { return out_; }
  int64_t in() const override { return in_; }
  int64_t bytes() const override { return values_.bytes() + scales_.bytes() + zeros_.bytes(); }
  Compute compute() const override { return compute_; }

  int64_t panels() const { return panels_; }
  PanelType type() const { return panel_.type; }
  int64_t group_size() const { return panel_.group_size; }
  bool round_to_bf16() const { return panel_.round_to_bf16; }
  DType scale_dtype() const { return scales_.dtype(); }
  const Tensor& values() const { return values_; }
  uint8_t* Values(int64_t panel) const { return values_.Row<uint8_t>(panel); }
  std::byte* Scales(int64_t panel) const {
    return static_cast<std::byte*>(scales_.view().Rows(panel, 1).data);
  }
  int8_t* Zeros(int64_t panel) const { return zeros_.Row<int8_t>(panel); }

  // Makes room for the scales (and zero points) of codes.
  void AddGrid(const QuantScheme& scheme, int64_t panel_cols, bool round_to_bf16) {
    const int64_t groups = scheme.GroupsFor(in_);
    // 8-bit scales are kept as they multiply: divided by the global scale, in F32.
    const DType scale_dtype = IsDenseFloat(scheme.scale_dtype) ? scheme.scale_dtype : DType::kF32;
    panel_.scale_type = DensePanelType(scale_dtype);
    panel_.round_to_bf16 = round_to_bf16;
    panel_.group_size = std::max<int64_t>(1, scheme.GroupSizeFor(in_));
    scales_ = HostTensor(scale_dtype, panels_, groups * panel_cols);
    if (!scheme.symmetric) zeros_ = HostTensor(DType::kI8, panels_, groups * panel_cols);
  }

  // What a kernel reads.
  Panel PanelAt(int64_t panel) const {
    Panel p = panel_;
    p.values = Values(panel);
    if (!scales_.empty()) p.scales = Scales(panel);
    if (!zeros_.empty()) p.zeros = Zeros(panel);
    return p;
  }

 private:
  int64_t out_;
  int64_t in_;
  Compute compute_;
  int64_t panels_;
  Panel panel_;    // what all panels share
  Tensor values_;  // [panels, bytes of a panel]
  Tensor scales_;  // [panels, groups * panel_cols] F32, F16 or BF16
  Tensor zeros_;   // [panels, groups * panel_cols] I8; empty if symmetric
};

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_CPU_LINEAR_H_
