#include "quant/pipeline/site_solver.h"

#include <algorithm>
#include <utility>

#include "quant/calib/site_statistics.h"
#include "quant/pipeline/block_rows.h"
#include "quant/solve/rtn.h"
#include "quant/solve/scale_search.h"
#include "quant/transform/static_inputs.h"

namespace quantmill {
namespace {

constexpr int kRefineSweeps = 2;  // a third one changes nothing that can be measured

// What weights alone would be rounded to.
Grid PlainGrid(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
               std::optional<GgmlType> blocks, std::optional<float> global_scale) {
  if (blocks && !HasOwnScales(*blocks)) {
    return ChooseBlocks(backend, exec, weight, *blocks, {}).grid;
  }
  return MinMax(backend, exec, weight, scheme, global_scale);
}

}  // namespace

SolvePlan PlanSolve(const Recipe& recipe, const QuantScheme& scheme) {
  SolvePlan plan;
  if (recipe.effort == Effort::kFast) return plan;
  const bool weights_only = scheme.input.type == InputScheme::Type::kNone;
  plan.search_scales = weights_only && SearchesScales(scheme);
  if (recipe.method == Method::kRtn) return plan;
  plan.asymmetric_target = weights_only;
  plan.refine_sweeps = kRefineSweeps;
  return plan;
}

bool NeedsFullStream(const Recipe& recipe, const std::vector<QuantizedModule>& modules) {
  return std::any_of(modules.begin(), modules.end(), [&](const QuantizedModule& module) {
    return PlanSolve(recipe, module.scheme).asymmetric_target;
  });
}

SiteSolver::SiteSolver(Backend& backend, Exec& exec, const Recipe& recipe,
                       SiteStatistics statistics,
                       const std::vector<const QuantizedModule*>& modules, const std::string& where,
                       std::optional<float> global_scale)
    : backend_(backend), exec_(exec), recipe_(recipe), global_scale_(global_scale) {
  for (const QuantizedModule* module : modules) {
    const QuantScheme& scheme = module->scheme;
    if (!PlanSolve(recipe, scheme).search_scales || blocks_.contains(scheme.group_size)) continue;
    blocks_[scheme.group_size] = GramBlocks(backend, exec, statistics.gram, scheme);
  }
  if (recipe.gguf) importance_ = DiagonalOf(backend, exec, statistics.gram);
  if (!statistics.range.empty()) {
    const Tensor range = HostTensor(DType::kF32, 2, statistics.range.cols());
    backend.Download(exec, statistics.range, range);
    const auto row = [&](int64_t r) {
      return std::vector<float>(range.Row<float>(r), range.Row<float>(r) + range.cols());
    };
    input_range_ = RangeOfInputs(row(0), row(1), {});
  }
  cross_ = {std::move(statistics.cross_fitted), std::move(statistics.cross_held),
            statistics.fitted_share, statistics.held_share};
  InputStatistics inputs(backend, exec, std::move(statistics.gram), recipe.act_order, where);
  if (recipe.method == Method::kRtn) {
    inputs_.emplace(std::move(inputs));
    return;
  }
  GptqOptions options;
  options.act_order = recipe.act_order;
  options.damp_percent = recipe.damp_percent;
  factor_.emplace(PrepareGptq(backend, exec, std::move(inputs), options));
}

Grid SiteSolver::ChooseGrid(ConstMatrix target, const QuantScheme& scheme, bool search) {
  if (!search) return MinMax(backend_, exec_, target, scheme, global_scale_);
  return SearchScales(backend_, exec_, target, blocks_.at(scheme.group_size), scheme,
                      global_scale_);
}

LayerSolution SiteSolver::SolveOn(ConstMatrix weight, ConstMatrix target, const QuantScheme& scheme,
                                  const Grid& grid) {
  LayerSolution solution;
  if (inputs_) {
    solution.solved = SolveRtn(backend_, exec_, weight, scheme, grid, &error_weights());
    if (inputs_->dead_columns()) solution.solved.events.push_back(*inputs_->dead_columns());
  } else {
    solution.solved = SolveGptq(backend_, exec_, *factor_, target, scheme, grid,
                                PlanSolve(recipe_, scheme).refine_sweeps);
  }
  return solution;
}

LayerSolution SiteSolver::Solve(ConstMatrix weight, const QuantScheme& scheme,
                                std::optional<GgmlType> blocks) {
  const SolvePlan plan = PlanSolve(recipe_, scheme);
  AsymmetricTarget corrected;
  ConstMatrix target = weight;
  if (factor_ && plan.asymmetric_target && !cross_.fitted.empty()) {
    corrected = CorrectTarget(backend_, exec_, *factor_, cross_, weight);
    target = corrected.target;
  }
  LayerSolution solution;
  if (blocks && !HasOwnScales(*blocks)) {
    BlockChoice choice = ChooseBlocks(backend_, exec_, target, *blocks, importance_);
    solution = SolveOn(weight, target, scheme, choice.grid);
    PutCodes(*blocks, solution.solved.linear, choice.rows);
    solution.rows = std::move(choice.rows);
  } else {
    solution = SolveOn(weight, target, scheme, ChooseGrid(target, scheme, plan.search_scales));
    if (blocks) solution.rows = RepackRows(*blocks, solution.solved.linear, "weight");
  }
  solution.target_strength = corrected.strength;
  if (scheme.input.has_stored_scale()) {
    SetStaticInput(input_range_, solution.solved.linear);
  }
  const Grid plain = PlainGrid(backend_, exec_, weight, scheme, blocks, global_scale_);
  solution.rounded_error =
      SolveRtn(backend_, exec_, weight, scheme, plain, &error_weights()).relative_error;
  return solution;
}

LayerSolution RoundLayer(Backend& backend, Exec& exec, ConstMatrix weight,
                         const QuantScheme& scheme, std::optional<GgmlType> blocks) {
  LayerSolution solution;
  if (blocks && !HasOwnScales(*blocks)) {
    BlockChoice choice = ChooseBlocks(backend, exec, weight, *blocks, {});
    solution.solved = SolveRtn(backend, exec, weight, scheme, choice.grid);
    PutCodes(*blocks, solution.solved.linear, choice.rows);
    solution.rows = std::move(choice.rows);
  } else {
    solution.solved = SolveRtn(backend, exec, weight, scheme);
    if (blocks) solution.rows = RepackRows(*blocks, solution.solved.linear, "weight");
  }
  solution.rounded_error = solution.solved.relative_error;
  return solution;
}

}  // namespace quantmill
