#include "quant/pipeline/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/core/error.h"
#include "quant/pipeline/block_rows.h"
#include "quant/pipeline/fold_block.h"
#include "quant/pipeline/site_solver.h"

namespace quantmill {
namespace {

// The binary, its heap, the tokenizer and the scratch of matrix products; measured on small models.
constexpr int64_t kProcessBytes = int64_t{64} << 20;

int64_t MaxOver(const DecoderSpec& spec, int64_t (*size)(const LinearSpec&)) {
  int64_t largest = 0;
  for (const LinearSpec* linear : spec.Linears()) largest = std::max(largest, size(*linear));
  return largest;
}
int64_t Elements(const LinearSpec& linear) { return linear.out * linear.in; }
int64_t SquareOfInput(const LinearSpec& linear) { return linear.in * linear.in; }

void AddItem(MemoryPlan& plan, std::string what, int64_t bytes) {
  if (bytes == 0) return;
  plan.items.push_back({std::move(what), bytes});
  plan.total_bytes += bytes;
}

// The largest block as the forward holds it: codes of up to four bits in nibbles, others in bytes,
// scales in F32; dense layers as they are stored, blocks that have more than codes and scales in
// F32.
int64_t PackedBlockBytes(const ModelSource& source, const QuantizePlan& plan) {
  int64_t largest = 0;
  for (const BlockSpec& block : source.spec().blocks) {
    int64_t bytes = 0;
    for (const LinearSpec* linear : block.Linears()) {
      const QuantizedModule* module = plan.Find(linear->name);
      if (module == nullptr) {
        bytes += Elements(*linear) * SizeOf(source.dense_dtype());
        continue;
      }
      if (const auto blocks = plan.BlocksOf(linear->name); blocks && !HasOwnScales(*blocks)) {
        bytes += Elements(*linear) * SizeOf(DType::kF32);
        continue;
      }
      bytes += Elements(*linear) * (module->scheme.bits <= 4 ? 1 : 2) / 2 +
               linear->out * module->scheme.GroupsFor(linear->in) * 4;
    }
    largest = std::max(largest, bytes);
  }
  return largest;
}

// The full-precision stream of the asymmetric target: its residuals, the dense block, what it runs
// again for each site, two cross matrices; and while a layer is solved, four more of its size.
int64_t FullStreamBytes(const DecoderSpec& spec, const QuantizePlan& plan) {
  StreamOptions options = plan.stream;
  options.keep_attention = false;
  options.keep_mlp = false;
  const CalibrationRecipe& calibration = plan.recipe.calibration;
  const int64_t tokens = calibration.samples * calibration.sequence_length;
  int64_t block = 0;
  for (const BlockSpec& candidate : spec.blocks) {
    int64_t weights = 0;
    for (const LinearSpec* l : candidate.Linears()) weights += Elements(*l);
    block = std::max(block, weights);
  }
  const int64_t element = SizeOf(ActivationType(plan.stream.compute));
  return CalibrationStream::HeldBytes(spec, tokens, calibration.sequence_length, options) +
         block * element + 2 * MaxOver(spec, SquareOfInput) * 4 +
         std::max(CalibrationStream::ScratchBytes(spec, calibration.sequence_length, options),
                  4 * MaxOver(spec, Elements) * 4);
}

// Largest memory over the run, item by item. What is freed before something else is needed counts
// once, as the larger of the two.
MemoryPlan EstimateMemory(const ModelSource& source, const QuantizePlan& plan) {
  const DecoderSpec& spec = source.spec();
  const Recipe& recipe = plan.recipe;
  MemoryPlan memory;
  AddItem(memory, "process", kProcessBytes);
  const int64_t element = SizeOf(source.dense_dtype());
  // One linear at a time: its pages of the file, F32 weight, codes twice (solver, result).
  const int64_t linear = MaxOver(spec, Elements);
  const int64_t solve = linear * (element + 4 + 2);
  if (!recipe.calibrated()) {
    AddItem(memory, "largest layer: weights in F32 and codes", solve);
    return memory;
  }
  AddItem(memory, "one block, quantized, packed for the forward", PackedBlockBytes(source, plan));
  const CalibrationRecipe& calibration = recipe.calibration;
  const int64_t tokens = calibration.samples * calibration.sequence_length;
  AddItem(memory,
          fmt::format("activations of {} windows of {} tokens", calibration.samples,
                      calibration.sequence_length),
          CalibrationStream::HeldBytes(spec, tokens, calibration.sequence_length, plan.stream));
  const int64_t forward =
      CalibrationStream::ScratchBytes(spec, calibration.sequence_length, plan.stream);
  const int64_t gram = MaxOver(spec, SquareOfInput) * 4;
  AddItem(memory,
          fmt::format("largest Gram matrix ({0} x {0}, F32)",
                      MaxOver(spec, [](const LinearSpec& l) { return l.in; })),
          gram);
  // The Gram matrix is there while its inputs are computed, and while its layers are solved. The
  // error of a solved layer is measured on some rows at a time, of which there are three copies.
  const int64_t widest = MaxOver(spec, [](const LinearSpec& l) { return l.in; });
  const int64_t error_rows = 3 * 512 * widest * 4;
  const int64_t work = std::max(forward, solve + error_rows);
  AddItem(memory, "the larger of: scratch of the forward; largest layer being solved", work);
  if (NeedsFullStream(recipe, plan.modules.all())) {
    AddItem(memory, "full-precision activations and layers beside (--effort fast has none)",
            FullStreamBytes(spec, plan));
  }
  // The search runs before the block's layers are solved, with a forward of its own.
  AddItem(memory, "search for scales of inputs, beyond what solving takes",
          std::max<int64_t>(0, FoldingBytes(spec, plan) + forward - gram - work));
  return memory;
}

// Gives up keeping activations, the widest first, until the estimate fits.
void FitBudget(const ModelSource& source, QuantizePlan& plan) {
  plan.memory = EstimateMemory(source, plan);
  const int64_t budget = plan.recipe.max_host_mem;
  if (budget == 0 || plan.memory.total_bytes <= budget) return;
  const int64_t kept = plan.memory.total_bytes;
  std::vector<std::string> notes;
  for (bool* keep : {&plan.stream.keep_mlp, &plan.stream.keep_attention}) {
    if (plan.memory.total_bytes <= budget || !plan.recipe.calibrated()) break;
    *keep = false;
    notes.push_back(fmt::format(
        "the inputs of {} are computed twice: keeping all activations takes {} MiB",
        keep == &plan.stream.keep_mlp ? "down projections" : "attention output projections",
        kept >> 20));
    plan.memory = EstimateMemory(source, plan);
  }
  if (plan.memory.total_bytes > budget) {  // smaller chunks, down to one window
    plan.stream.chunk_tokens = plan.recipe.calibration.sequence_length;
    plan.memory = EstimateMemory(source, plan);
  }
  plan.memory.notes = std::move(notes);
  if (plan.memory.total_bytes <= budget) return;
  throw Error(
      ErrorCode::kEnvironment, "--max-host-mem",
      fmt::format("{} MiB is too little; {} MiB is the least that would do with {} x {} "
                  "calibration tokens (fewer --samples need less; so does --effort fast)",
                  budget >> 20, (plan.memory.total_bytes >> 20) + 1,
                  plan.recipe.calibration.samples, plan.recipe.calibration.sequence_length));
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
  plan.stream.compute = *plan.recipe.compute;
  FitBudget(source, plan);
  return plan;
}

}  // namespace quantmill
