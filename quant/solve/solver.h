// What solvers take and give. A solver is a pure function of weights, statistics and a scheme: it
// knows no files, names or graphs. Siblings (rtn.h, gptq.h) choose codes on a Grid that they are
// given (MinMax here, scale_search.h), so that any grid can be combined with any solver.
#ifndef QUANTMILL_QUANT_SOLVE_SOLVER_H_
#define QUANTMILL_QUANT_SOLVE_SOLVER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/scheme.h"
#include "kernels/ops.h"

namespace quantmill {

// Something that the report has to name: it went on, but not as planned.
struct SolveEvent {
  enum class Kind {
    kDoublePrecision,         // F32 failed to factor, F64 did not; value: the damping
    kDampingRaised,           // value: the damping that factored, as a share of mean(diag H)
    kRoundToNearestFallback,  // value: the last damping tried, same unit; 0 if it factored
    kDeadColumns              // value: how many inputs were always zero
  };
  Kind kind;
  std::string detail;  // for people
  double value = 0;
};

struct SolveResult {
  QuantizedLinear linear;  // host memory
  // [out, groups]: added to the values of `linear`, as Grid::offsets has it; empty: none.
  std::vector<float> offsets;
  // Of the target that was solved for. With statistics: tr(dW H dW^T) / tr(W H W^T), H undamped,
  // dead inputs left out. Without (RTN alone): |dW|^2 / |W|^2. Of a zero weight: 0.
  double relative_error = 0;
  double damp = 0;                 // absolute damping used
  std::vector<SolveEvent> events;  // of this linear and of the statistics it was solved with
};

// Scales and zero points of one linear, in the backend's memory.
struct Grid {
  // [out, groups] F32, effective (divided by global_scale): times global_scale each is exactly
  // representable in scheme.scale_dtype.
  Tensor scales;
  Tensor zero_points;  // [out, groups] I8; empty if symmetric
  float global_scale = 1;
  // [out, groups] F32, real numbers that are added to every value of a group; empty: none. For
  // formats that store them beside symmetric codes (GGUF's affine blocks): to choose codes for a
  // target is to choose them, without offsets, for the target less the offsets.
  Tensor offsets = {};
};

// Largest |w|. weight: [out, in] F32, backend memory.
float AbsMax(Backend& backend, Exec& exec, ConstMatrix weight);

// NVFP4's global scale for weights whose largest magnitude is `absmax`: their group scales then
// reach the largest E4M3 number (formats.md section 4.2). Layers that a server fuses share one.
float GlobalScaleFor(float absmax);

// The smallest grid that covers each group (Backend::MinMaxGrid), from the weights alone; rows of a
// row_block share the largest of their scales. `global_scale` matters where
// scheme.has_global_scale(): GlobalScaleFor the weight, if it is not given.
// weight: [out, in] F32, backend memory, finite. Throws Error(kBadInput) if a scale overflows
// scheme.scale_dtype.
Grid MinMax(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
            std::optional<float> global_scale = std::nullopt);

// ---- for solvers ----

// A matrix like `weight` ([out, in] F32, backend memory) less the offsets of `grid`, which has
// some.
Tensor LessOffsets(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                   const Grid& grid);

// [out, groups] in host memory; empty if the grid has none.
std::vector<float> DownloadOffsets(Backend& backend, Exec& exec, const Grid& grid);

// The QuantizedLinear of `codes` ([out, in] I8, backend memory) on `grid`, in host memory.
QuantizedLinear DownloadLinear(Backend& backend, Exec& exec, const QuantScheme& scheme,
                               const Grid& grid, ConstMatrix codes);

// The statistics that weigh an error: H with its columns in another order.
struct ErrorWeights {
  ConstMatrix gram;            // [in, in] F32, backend memory: H in its strict lower triangle
  ConstMatrix diagonal;        // [1, in] F32, backend memory: diag H, 1 where dead
  std::vector<int32_t> order;  // order[k]: the original column that is the k-th of H
  std::vector<bool> dead;      // [in], original columns: errors there count nothing
};

// SolveResult::relative_error of `linear` for `weight` ([out, in] F32, backend memory).
// `weights` null: by plain squares. offsets: as in SolveResult. Works on a few rows at a time.
double RelativeError(Backend& backend, Exec& exec, ConstMatrix weight,
                     const QuantizedLinear& linear, const ErrorWeights* weights,
                     std::span<const float> offsets = {});

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_SOLVER_H_
