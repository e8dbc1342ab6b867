#include "kernels/cpu/cpu_rounded_linear.h"

#include <algorithm>
#include <cstring>

namespace quantmill::cpu {

Segments SegmentsOf(const QuantScheme& scheme, int64_t in) {
  const int64_t row = std::max<int64_t>(1, in);
  const int64_t weight = std::min(row, std::max<int64_t>(1, scheme.GroupSizeFor(in)));
  const int64_t input = scheme.input.group_size == InputScheme::kPerToken
                            ? row
                            : std::min(row, scheme.input.group_size);
  Segments segments;
  segments.inputs = std::min(weight, input);
  segments.count = CeilDiv(row, segments.inputs);
  for (const int64_t group : {weight, input}) {
    Check(group == row || group % segments.inputs == 0,
          "PackQuantized: groups of weight and input cut each other");
  }
  segments.per_weight = CeilDiv(weight, segments.inputs);
  segments.per_input = CeilDiv(input, segments.inputs);
  return segments;
}

CpuRoundedLinear::CpuRoundedLinear(const QuantizedLinear& linear, Compute compute,
                                   int64_t panel_cols)
    : out_(linear.out),
      in_(linear.in),
      compute_(compute),
      panel_cols_(panel_cols),
      input_(linear.scheme.input),
      input_scale_(linear.input_scale),
      input_zero_(input_.symmetric ? 0 : linear.input_zero_point),
      segments_(SegmentsOf(linear.scheme, linear.in)) {
  Check(input_.dynamic || input_scale_ > 0, "PackQuantized: static inputs need a scale");
  const int64_t panels = CeilDiv(out_, panel_cols);
  const int64_t groups = std::max<int64_t>(1, linear.groups());
  scales_ = HostTensor(DType::kF32, panels, groups * panel_cols);
  if (!integers()) return;
  Check(linear.scheme.code_type == CodeType::kInt,
        "PackQuantized: integer inputs need integer codes");
  // |code - zero| is at most 128, or 255 where zero points exist.
  const int64_t largest = (input_.symmetric ? 128 : 255) * (linear.scheme.symmetric ? 128 : 255);
  Check(segments_.inputs <= INT32_MAX / largest,
        "PackQuantized: a sum of integers would not fit 32 bits");
  quads_ = HostTensor(DType::kI8, panels, segments_.count * segment_quads() * panel_cols * 4);
  offsets_ = HostTensor(DType::kI32, panels, segments_.count * panel_cols);
  if (!linear.scheme.symmetric) zeros_ = HostTensor(DType::kI32, panels, groups * panel_cols);
}

int64_t CpuRoundedLinear::bytes() const {
  return quads_.bytes() + scales_.bytes() + zeros_.bytes() + offsets_.bytes() +
         (numbers_ == nullptr ? 0 : numbers_->bytes());
}

void CpuRoundedLinear::PackTables(const QuantizedLinear& linear, int64_t panel) const {
  const int64_t groups = linear.groups();
  std::fill_n(scales_.Row<float>(panel), scales_.cols(), 0.0f);
  if (has_zeros()) std::fill_n(zeros_.Row<int32_t>(panel), zeros_.cols(), 0);
  const int64_t first = panel * panel_cols_;
  const int64_t cols = std::min(panel_cols_, out_ - first);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t to = g * panel_cols_ + c;
      scales_.Row<float>(panel)[to] = linear.EffectiveScale(first + c, g);
      if (!has_zeros()) continue;
      const int zero{linear.zero_points[static_cast<size_t>((first + c) * groups + g)]};
      zeros_.Row<int32_t>(panel)[to] = zero;
    }
  }
}

void CpuRoundedLinear::PackQuads(const QuantizedLinear& linear, int64_t panel,
                                 int byte_offset) const {
  std::memset(quads_.Row<int8_t>(panel), 0, static_cast<size_t>(quads_.cols()));
  std::fill_n(offsets_.Row<int32_t>(panel), offsets_.cols(), 0);
  const int64_t first = panel * panel_cols_;
  const int64_t cols = std::min(panel_cols_, out_ - first);
  for (int64_t s = 0; s < segments_.count; ++s) {
    const int64_t begin = s * segments_.inputs;
    const int64_t end = std::min(in_, begin + segments_.inputs);
    for (int64_t c = 0; c < cols; ++c) {
      const int8_t* codes = linear.codes.data() + (first + c) * in_;
      int8_t* to = Quads(panel, s) + c * 4;
      int32_t sum = 0;
      for (int64_t i = begin; i < end; ++i) {
        to[(i - begin) / 4 * panel_cols_ * 4 + (i - begin) % 4] = codes[i];
        sum += codes[i];
      }
      Offsets(panel, s)[c] = sum * (byte_offset + input_zero_);
    }
  }
}

}  // namespace quantmill::cpu
