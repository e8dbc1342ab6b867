// Sizes and ranges that the solve ops of the cpu backend share.
#ifndef QUANTMILL_KERNELS_CPU_SOLVE_SHAPES_H_
#define QUANTMILL_KERNELS_CPU_SOLVE_SHAPES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/scheme.h"
#include "kernels/cpu/solve_kernels.h"
#include "kernels/ops.h"

namespace quantmill::cpu {

inline CodeRange RangeOf(const QuantScheme& scheme) {
  switch (scheme.code_type) {
    case CodeType::kFp8:
      return {CodeKind::kFp8, 0, 0};
    case CodeType::kFp4:
      return {CodeKind::kFp4, 0, 0};
    case CodeType::kIq4Nl:
      return {CodeKind::kIq4Nl, 0, 0};
    case CodeType::kInt:
      break;
  }
  return {CodeKind::kInt, static_cast<float>(scheme.min_code()),
          static_cast<float>(scheme.max_code())};
}

// The group of each column of `order`.
inline std::vector<int32_t> GroupsInOrder(std::span<const int32_t> order, int64_t group_size) {
  std::vector<int32_t> groups;
  groups.reserve(order.size());
  for (const int32_t column : order) groups.push_back(static_cast<int32_t>(column / group_size));
  return groups;
}

// The rows [row, row + codes.rows) of a problem, without loss.
inline GptqTile TileOf(const GptqProblem& problem, const std::vector<int32_t>& group_of,
                       int64_t row, Matrix codes, float* scratch) {
  GptqTile tile{};
  tile.weight = problem.weight.Row<float>(row);
  tile.weight_stride = problem.weight.stride;
  tile.rows = codes.rows;
  tile.in = problem.weight.cols;
  tile.order = problem.order.data();
  tile.group_of = group_of.data();
  tile.factor = problem.factor.Row<float>(0);
  tile.factor_stride = problem.factor.stride;
  tile.scales = problem.scales.Row<float>(row);
  tile.scales_stride = problem.scales.stride;
  tile.zeros = problem.scheme.symmetric ? nullptr : problem.zero_points.Row<int8_t>(row);
  tile.zeros_stride = problem.zero_points.stride;
  tile.groups = problem.scales.cols;
  tile.range = RangeOf(problem.scheme);
  tile.codes = codes.Row<int8_t>(0);
  tile.codes_stride = codes.stride;
  tile.scratch = scratch;
  return tile;
}

// Rows that a task of GptqSolve, RefineCodes or QuadraticForm takes. A task reads the whole [in,
// in] triangle, so long rows, whose triangle does not fit the caches, share each pass among more of
// them. By the shape alone; no result depends on it.
constexpr int64_t TileRows(int64_t in) { return in >= 4096 ? 128 : 64; }

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_SOLVE_SHAPES_H_
