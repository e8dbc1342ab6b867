// The smallest grid that covers each group, for every way in which scales are shared and stored.
#include <algorithm>
#include <cmath>

#include "quant/solve/solver.h"

namespace quantmill {
namespace {

[[noreturn]] void ThrowOverflow(int64_t row, DType dtype) {
  throw Error(ErrorCode::kBadInput, "weight",
              "the scale of row " + std::to_string(row) + " is past the largest " +
                  std::string(NameOf(dtype)) + "; store scales as BF16 or F32");
}

float LeastScale(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return 0x1p-14f;
    case DType::kF8E4M3:
      return 0x1p-9f;
    default:
      return 0x1p-126f;
  }
}

// The largest magnitude of each row's groups. result: [out, groups] F32, host memory.
void GroupMaxima(Backend& backend, Exec& exec, ConstMatrix weight, int64_t group_size,
                 Matrix result) {
  const Tensor host = HostTensor(DType::kF32, 1, weight.cols);
  const auto* row = host.Row<float>(0);
  for (int64_t r = 0; r < weight.rows; ++r) {
    backend.Download(exec, weight.Rows(r, 1), host);
    for (int64_t g = 0; g < result.cols; ++g) {
      const int64_t end = std::min(weight.cols, (g + 1) * group_size);
      float largest = 0;
      for (int64_t i = g * group_size; i < end; ++i) largest = std::max(largest, std::fabs(row[i]));
      result.Row<float>(r)[g] = largest;
    }
  }
}

float LargestOf(ConstMatrix maxima) {
  float largest = 0;
  for (int64_t r = 0; r < maxima.rows; ++r) {
    for (int64_t g = 0; g < maxima.cols; ++g) largest = std::max(largest, maxima.Row<float>(r)[g]);
  }
  return largest;
}

// Rows of a block take the largest among them.
void ShareRows(int64_t row_block, Matrix maxima) {
  for (int64_t begin = 0; begin < maxima.rows; begin += row_block) {
    const int64_t end = std::min(maxima.rows, begin + row_block);
    for (int64_t g = 0; g < maxima.cols; ++g) {
      float largest = 0;
      for (int64_t r = begin; r < end; ++r) largest = std::max(largest, maxima.Row<float>(r)[g]);
      for (int64_t r = begin; r < end; ++r) maxima.Row<float>(r)[g] = largest;
    }
  }
}

// A group's largest magnitude / half the range, as it is stored: an effective scale.
float StoredScale(float scale, DType dtype, float global_scale) {
  float stored = scale == 0 ? 0.0f : RoundTo(dtype, scale * global_scale);
  if (stored == 0) stored = scale == 0 ? RoundTo(dtype, 1.0f) : LeastScale(dtype);
  return stored / global_scale;
}

// Grids whose scales are shared by rows, or stored as 8-bit floats: worked out on the host.
Grid SharedGrid(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                std::optional<float> global_scale) {
  Check(scheme.symmetric, "MinMax: shared and float scales are symmetric");
  const int64_t groups = scheme.GroupsFor(weight.cols);
  const Tensor scales = HostTensor(DType::kF32, weight.rows, groups);
  GroupMaxima(backend, exec, weight, scheme.GroupSizeFor(weight.cols), scales);
  Grid grid{backend.Empty(DType::kF32, weight.rows, groups), {}, 1};
  if (scheme.has_global_scale()) {
    grid.global_scale = global_scale ? *global_scale : GlobalScaleFor(LargestOf(scales));
  }
  if (weight.rows > 0) ShareRows(scheme.RowBlockFor(weight.rows), scales);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      float& scale = scales.Row<float>(r)[g];
      scale = StoredScale(scale / scheme.half_range(), scheme.scale_dtype, grid.global_scale);
    }
  }
  backend.Upload(exec, scales, grid.scales);
  exec.stream.Synchronize();  // `scales` is read until then
  return grid;
}

}  // namespace

float AbsMax(Backend& backend, Exec& exec, ConstMatrix weight) {
  const Tensor maxima = HostTensor(DType::kF32, weight.rows, 1);
  GroupMaxima(backend, exec, weight, weight.cols, maxima);
  return LargestOf(maxima);
}

float GlobalScaleFor(float absmax) {
  constexpr float kLargestScale = 448;
  constexpr float kLargestNumber = 6;
  const float scale = kLargestScale * kLargestNumber / absmax;
  return absmax > 0 && std::isfinite(scale) ? scale : 1.0f;
}

Grid MinMax(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
            std::optional<float> global_scale) {
  const int64_t groups = scheme.GroupsFor(weight.cols);
  Grid grid;
  if (!IsDenseFloat(scheme.scale_dtype) || scheme.row_block != 1) {
    grid = SharedGrid(backend, exec, weight, scheme, global_scale);
  } else {
    grid.scales = backend.Empty(DType::kF32, weight.rows, groups);
    if (!scheme.symmetric) grid.zero_points = backend.Empty(DType::kI8, weight.rows, groups);
    backend.MinMaxGrid(exec, weight, scheme, grid.scales, grid.zero_points);
  }
  const Tensor scales = HostTensor(DType::kF32, weight.rows, groups);
  backend.Download(exec, grid.scales, scales);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      if (!std::isfinite(scales.Row<float>(r)[g])) ThrowOverflow(r, scheme.scale_dtype);
    }
  }
  return grid;
}

}  // namespace quantmill
