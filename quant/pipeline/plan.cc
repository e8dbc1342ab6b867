#include "quant/pipeline/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/core/error.h"
#include "quant/pipeline/budget.h"
#include "quant/pipeline/memory_estimate.h"
#include "quant/pipeline/sensitivity.h"
#include "quant/runtime/kv_precision.h"

namespace quantmill {
namespace {

// How the plan takes less of the backend's memory.
struct Economy {
  void (*take)(QuantizePlan& plan);
  bool for_devices;  // alone
  const char* note;  // null: not worth one
};

// The cheapest first. Inputs of a site cost a forward of the site before; crossing the bus costs
// more, all activations for every site.
constexpr Economy kEconomies[] = {
    {[](QuantizePlan& plan) { plan.stream.keep_mlp = false; }, false,
     "the inputs of down projections are computed twice: keeping all activations takes {} MiB"},
    {[](QuantizePlan& plan) { plan.stream.keep_attention = false; }, false,
     "the inputs of attention output projections are computed twice: keeping all activations takes "
     "{} MiB"},
    {[](QuantizePlan& plan) { plan.stream.activations_in_host_memory = true; }, true,
     "activations lie in host memory: without that, {} MiB of GPU memory would be needed"},
    {[](QuantizePlan& plan) {
       plan.stream.chunk_tokens = plan.recipe.calibration.sequence_length;  // one window
     },
     false, nullptr}};

[[noreturn]] void Refuse(const char* flag, const std::string& budget, int64_t needed,
                         const CalibrationRecipe& calibration) {
  throw Error(
      ErrorCode::kEnvironment, flag,
      fmt::format("{} is too little; {} MiB is the least that would do with {} x {} "
                  "calibration tokens (fewer --samples need less; so does --effort fast)",
                  budget, (needed >> 20) + 1, calibration.samples, calibration.sequence_length));
}

// The memory that the run may take of the backend's; 0: no limit.
int64_t BudgetOf(const Recipe& recipe, const BackendInfo& backend) {
  if (backend.memory == 0) return recipe.max_host_mem;
  return recipe.max_gpu_mem > 0 ? std::min(recipe.max_gpu_mem, backend.memory)
                                : backend.memory / 10 * 9;
}

// Renews plan.memory; returns what the run needs of the backend's.
int64_t Estimate(const ModelSource& source, const BackendInfo& backend, QuantizePlan& plan) {
  std::vector<std::string> notes = std::move(plan.memory.notes);
  plan.memory = EstimateMemory(source.spec(), source.dense_dtype(), plan, backend);
  plan.memory.notes = std::move(notes);
  return backend.memory > 0 ? plan.memory.gpu_bytes : plan.memory.total_bytes;
}

// Takes one economy after the other until the estimate fits.
void FitBudget(const ModelSource& source, const BackendInfo& backend, QuantizePlan& plan) {
  const bool on_device = backend.memory > 0;
  const int64_t budget = plan.backend_budget;
  const Recipe& recipe = plan.recipe;
  int64_t needed = Estimate(source, backend, plan);
  const int64_t kept = needed;
  for (const Economy& economy : kEconomies) {
    if (budget == 0 || needed <= budget || !recipe.calibrated()) break;
    if (economy.for_devices && !on_device) continue;
    if (economy.note != nullptr) {
      // What precedes host memory is what was needed to keep activations out of it.
      const int64_t bytes = economy.for_devices ? needed : kept;
      plan.memory.notes.push_back(fmt::format(fmt::runtime(economy.note), bytes >> 20));
    }
    economy.take(plan);
    needed = Estimate(source, backend, plan);
  }
  if (budget > 0 && needed > budget) {
    const bool is_share = on_device && recipe.max_gpu_mem == 0;
    Refuse(on_device ? "--max-gpu-mem" : "--max-host-mem",
           fmt::format("{} MiB{}", budget >> 20, is_share ? " (90 % of what the GPU has)" : ""),
           needed, recipe.calibration);
  }
  if (on_device && recipe.max_host_mem > 0 && plan.memory.total_bytes > recipe.max_host_mem) {
    Refuse("--max-host-mem", fmt::format("{} MiB", recipe.max_host_mem >> 20),
           plan.memory.total_bytes, recipe.calibration);
  }
}

// Copies to a device that run beside its work, as far as what they take is left of the budgets.
void SpendTheRest(const ModelSource& source, const BackendInfo& backend, QuantizePlan& plan) {
  if (backend.memory == 0 || !plan.recipe.calibrated()) return;
  const int64_t host_budget = plan.recipe.max_host_mem;
  const auto fits = [&] {
    return Estimate(source, backend, plan) <= plan.backend_budget &&
           (host_budget == 0 || plan.memory.total_bytes <= host_budget);
  };
  plan.loads_ahead = true;
  if (!fits()) plan.loads_ahead = false;
  plan.stream.double_buffered = plan.stream.activations_in_host_memory;
  if (!fits()) plan.stream.double_buffered = false;
  Estimate(source, backend, plan);
}

// Before minutes of rotating or measuring, after which the choice would refuse it.
void CheckBudgetOfBits(const ModelSource& source, const QuantizePlan& plan) {
  const std::optional<Budget>& budget = plan.recipe.budget;
  if (!budget || budget->kind != Budget::Kind::kBits) return;
  if (!HasCandidates(plan.recipe.scheme)) return;  // told where they are measured
  const Sensitivity counted = CountBits(source, plan);
  if (!counted.groups.empty()) CheckBits(counted, budget->limit);
}

}  // namespace

QuantizePlan PlanQuantization(const ModelSource& source, const Recipe& recipe,
                              const BackendInfo& backend) {
  QuantizePlan plan = PlanModules(source, recipe);
  const Compute best = backend.compute_bf16 ? Compute::kBF16 : Compute::kF32;
  if (recipe.compute == Compute::kBF16 && best != Compute::kBF16) {
    throw Error(ErrorCode::kEnvironment, "--compute bf16",
                backend.name + " " + backend.isa + " does not multiply in bf16; use --compute f32");
  }
  plan.recipe.compute = recipe.compute.value_or(best);
  plan.stream.compute = ForManyTokens(*plan.recipe.compute, backend);
  plan.stream.cache = FastCacheType(backend, plan.stream.compute);
  if (backend.memory == 0 && recipe.max_gpu_mem > 0) {
    throw Error(ErrorCode::kUsage, "--max-gpu-mem",
                "the run is on " + backend.name +
                    ", which has the host's memory: --max-host-mem is its budget");
  }
  CheckBudgetOfBits(source, plan);
  plan.backend_budget = BudgetOf(plan.recipe, backend);
  FitBudget(source, backend, plan);
  SpendTheRest(source, backend, plan);
  return plan;
}

}  // namespace quantmill
