#include "quant/pipeline/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/core/error.h"

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

// Group sizes of 32, 64, 128 that divide every width.
std::string FittingGroups(const std::vector<int64_t>& widths) {
  std::string fitting;
  for (const int64_t size : {128, 64, 32}) {
    const bool fits =
        std::all_of(widths.begin(), widths.end(), [&](int64_t width) { return width % size == 0; });
    if (fits) fitting += std::to_string(size) + ", ";
  }
  return fitting + "channel";
}

void CheckGroups(const DecoderSpec& spec, const QuantScheme& scheme) {
  if (scheme.group_size == QuantScheme::kPerChannel) return;
  if (scheme.group_size < 1) {
    throw Error(ErrorCode::kUsage, "--group-size", "must be positive, or 'channel'");
  }
  std::vector<int64_t> widths;
  std::string layers;
  int64_t misfits = 0;
  constexpr int64_t kListed = 8;
  for (const LinearSpec* linear : spec.Linears()) {
    widths.push_back(linear->in);
    if (linear->in % scheme.group_size == 0) continue;
    if (++misfits <= kListed) {
      layers += fmt::format("\n  {} ({} inputs)", linear->name, linear->in);
    }
  }
  if (misfits == 0) return;
  if (misfits > kListed) layers += fmt::format("\n  and {} more", misfits - kListed);
  throw Error(
      ErrorCode::kUsage, "--group-size",
      fmt::format("{} does not divide the inputs of {} of {} layers; group sizes that fit "
                  "all layers: {}. Layers that do not fit:{}",
                  scheme.group_size, misfits, widths.size(), FittingGroups(widths), layers));
}

DType ScaleType(DType dense) { return dense == DType::kBF16 ? DType::kBF16 : DType::kF16; }

void AddItem(MemoryPlan& plan, std::string what, int64_t bytes) {
  if (bytes == 0) return;
  plan.items.push_back({std::move(what), bytes});
  plan.total_bytes += bytes;
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
  if (recipe.method == Method::kRtn) {
    AddItem(memory, "largest layer: weights in F32 and codes", solve);
    return memory;
  }
  int64_t block = 0;
  for (const LinearSpec* l : spec.blocks.front().Linears()) block += Elements(*l);
  const int64_t scale_bytes = block / recipe.scheme.GroupSizeFor(spec.hidden) * 4;
  AddItem(memory, "one block, quantized, packed for the forward",
          block * (recipe.scheme.bits <= 4 ? 1 : 2) / 2 + scale_bytes);
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
  AddItem(memory, "the larger of: scratch of the forward; largest layer being solved",
          std::max(forward, solve + error_rows));
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
    if (plan.memory.total_bytes <= budget || plan.recipe.method == Method::kRtn) break;
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
                  "calibration tokens (fewer --samples need less)",
                  budget >> 20, (plan.memory.total_bytes >> 20) + 1,
                  plan.recipe.calibration.samples, plan.recipe.calibration.sequence_length));
}

}  // namespace

QuantizePlan PlanQuantization(const ModelSource& source, const Recipe& recipe,
                              const BackendInfo& backend) {
  if (source.artifact() != nullptr) {
    throw Error(ErrorCode::kBadInput, source.path(),
                fmt::format("is quantized already ({}); quantize starts from a dense checkpoint",
                            source.artifact()->format()));
  }
  QuantizePlan plan;
  plan.recipe = recipe;
  plan.recipe.scheme.scale_dtype = ScaleType(source.dense_dtype());
  if (!plan.recipe.compute) {
    plan.recipe.compute = backend.compute_bf16 ? Compute::kBF16 : Compute::kF32;
  }
  plan.stream.compute = *plan.recipe.compute;
  CheckGroups(source.spec(), plan.recipe.scheme);
  const ArtifactWriterFormat& format = FindArtifactFormat(recipe.format);
  for (const LinearSpec* linear : source.spec().Linears()) {
    plan.modules.push_back({linear->name, plan.recipe.scheme, linear->out, linear->in});
    format.CheckSupported(plan.modules.back());
  }
  plan.dense.push_back(source.spec().lm_head.name);
  FitBudget(source, plan);
  return plan;
}

}  // namespace quantmill
