#include "quant/pipeline/memory_estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "quant/pipeline/block_rows.h"
#include "quant/pipeline/fold_block.h"
#include "quant/pipeline/site_solver.h"

namespace quantmill {
namespace {

// The binary, its heap, the tokenizer and the scratch of matrix products; measured on small models.
constexpr int64_t kProcessBytes = int64_t{64} << 20;
// What a GPU's driver and libraries take of host memory. Assumed, on the large side.
constexpr int64_t kDriverBytes = int64_t{448} << 20;
constexpr int64_t kF32 = 4;
// A device decodes the weights of a product this many at a time, and weighs this many rows of
// errors (kernels/cuda).
constexpr int64_t kDecodedWeights = int64_t{1} << 26;
constexpr int64_t kWeighedRows = 8192;
// Columns of a panel of the libraries' factorizations, and of those of the solvers.
constexpr int64_t kPanel = 512;
// Rows of a layer whose error is measured at a time, at most.
constexpr int64_t kErrorRows = 1024;
// What Workspace leaves free at the ends of its first and last chunks.
constexpr int64_t kWorkspaceEnds = int64_t{128} << 10;
constexpr int64_t kCodeTable = 1024;  // of a packed layer: what its codes stand for
constexpr int64_t kGramBlock = 128;   // columns of what scales are searched by

int64_t Elements(const LinearSpec& linear) { return linear.out * linear.in; }
int64_t SquareOfInput(const LinearSpec& linear) { return linear.in * linear.in; }

// One list of items with its sum.
class Items {
 public:
  void Add(std::string what, int64_t bytes) {
    if (bytes <= 0) return;
    items_.push_back({std::move(what), bytes});
    total_ += bytes;
  }
  int64_t total() const { return total_; }
  std::vector<PlanItem> Take() { return std::move(items_); }

 private:
  std::vector<PlanItem> items_;
  int64_t total_ = 0;
};

class Estimate {
 public:
  Estimate(const DecoderSpec& spec, DType stored, const QuantizePlan& plan,
           const BackendInfo& backend)
      : spec_(spec),
        plan_(plan),
        stored_(SizeOf(stored)),
        element_(SizeOf(ActivationType(plan.stream.compute))),
        overhead_(backend.memory_overhead),
        linears_(spec.Linears()),
        full_(plan.recipe.calibrated() && NeedsFullStream(plan.recipe, plan.modules.all())) {
    full_options_ = plan.stream;
    full_options_.keep_attention = false;
    full_options_.keep_mlp = false;
  }

  // Where all memory is the host's.
  std::vector<PlanItem> OfHostAlone(int64_t& total);
  // Where the backend has its own.
  std::vector<PlanItem> OfHost(int64_t& total);
  std::vector<PlanItem> OfDevice(int64_t& total);

 private:
  const CalibrationRecipe& calibration() const { return plan_.recipe.calibration; }
  int64_t window() const { return calibration().sequence_length; }
  int64_t tokens() const { return calibration().samples * window(); }
  template <typename Size>
  int64_t MaxOverLinears(const Size& size) const {
    int64_t largest = 0;
    for (const LinearSpec* linear : linears_) largest = std::max(largest, size(*linear));
    return largest;
  }
  int64_t widest() const {
    return MaxOverLinears([](const LinearSpec& linear) { return linear.in; });
  }
  bool HeadIsQuantized() const { return plan_.Find(spec_.lm_head.name) != nullptr; }
  std::string Windows() const {
    return fmt::format("activations of {} windows of {} tokens", calibration().samples, window());
  }

  int64_t Scratch(const StreamOptions& options) const {
    return CalibrationStream::ScratchBytes(spec_, window(), options);
  }
  // The inputs of one product, split into parts (Compute::kBF16x3).
  int64_t SplitInputs() const {
    constexpr int64_t kPartBytes = 6;  // of an input
    if (plan_.stream.compute != Compute::kBF16x3) return 0;
    return std::max(plan_.stream.chunk_tokens, window()) * widest() * kPartBytes;
  }
  int64_t Held(const StreamOptions& options) const {
    return CalibrationStream::HeldBytes(spec_, tokens(), window(), options);
  }
  // Norms, biases, a mixture's router.
  int64_t Beside(const BlockSpec& block) const;
  int64_t DenseBlock() const;
  int64_t PackedBlock() const;
  // One layer at a time: its pages of the file, F32 weight, codes twice (solver, result).
  int64_t HostLayer(int64_t elements) const { return elements * (stored_ + kF32 + 2); }
  // The full-precision stream of the asymmetric target: its residuals, the dense block, what it
  // runs again for each site, two cross matrices; and while a layer is solved, four more of its
  // size.
  int64_t FullStream() const;

  int64_t DeviceForward() const;
  int64_t DeviceStatistics(const LinearSpec& linear) const;
  int64_t DeviceFactor(const LinearSpec& linear) const;
  int64_t DeviceSolve(const LinearSpec& linear) const;
  int64_t DeviceRounding(const LinearSpec& linear) const;

  const DecoderSpec& spec_;
  const QuantizePlan& plan_;
  const int64_t stored_;   // bytes of a weight of the checkpoint
  const int64_t element_;  // of an activation that products read
  const int64_t overhead_;
  const std::vector<const LinearSpec*> linears_;
  const bool full_;
  StreamOptions full_options_;
};

int64_t Estimate::Beside(const BlockSpec& block) const {
  int64_t bytes = 2 * (4 * spec_.hidden + spec_.head_dim) * kF32;  // gains and biases
  for (const LinearSpec* linear : block.Linears()) bytes += linear->bias ? linear->out * kF32 : 0;
  for (const LinearSpec* linear : block.RoutingLinears()) bytes += Elements(*linear) * kF32;
  return bytes;
}

int64_t Estimate::DenseBlock() const {
  int64_t largest = 0;
  for (const BlockSpec& block : spec_.blocks) {
    int64_t bytes = Beside(block);
    for (const LinearSpec* linear : block.Linears()) bytes += Elements(*linear) * element_;
    largest = std::max(largest, bytes);
  }
  return largest;
}

// The largest block as the forward holds it: codes of up to four bits in nibbles, others in bytes,
// scales in F32; dense layers as they are stored, blocks that have more than codes and scales in
// F32.
int64_t Estimate::PackedBlock() const {
  int64_t largest = 0;
  for (const BlockSpec& block : spec_.blocks) {
    int64_t bytes = Beside(block);
    for (const LinearSpec* linear : block.Linears()) {
      const QuantizedModule* module = plan_.Find(linear->name);
      if (module == nullptr) {
        bytes += Elements(*linear) * stored_;
        continue;
      }
      if (const auto blocks = plan_.BlocksOf(linear->name); blocks && !HasOwnScales(*blocks)) {
        bytes += Elements(*linear) * kF32;
        continue;
      }
      const QuantScheme& scheme = module->scheme;
      bytes += kCodeTable + Elements(*linear) * (scheme.bits <= 4 ? 1 : 2) / 2 +
               linear->out * scheme.GroupsFor(linear->in) * (kF32 + (scheme.symmetric ? 0 : 1));
    }
    largest = std::max(largest, bytes);
  }
  return largest;
}

int64_t Estimate::FullStream() const {
  return Held(full_options_) + DenseBlock() + 2 * MaxOverLinears(SquareOfInput) * kF32 +
         std::max(Scratch(full_options_), 4 * MaxOverLinears(Elements) * kF32);
}

std::vector<PlanItem> Estimate::OfHostAlone(int64_t& total) {
  Items items;
  items.Add("process", kProcessBytes);
  const int64_t solve = HostLayer(MaxOverLinears(Elements));
  const int64_t head = HeadIsQuantized() ? HostLayer(Elements(spec_.lm_head)) : 0;
  if (!plan_.recipe.calibrated()) {
    items.Add("largest layer: weights in F32 and codes", std::max(solve, head));
    total = items.total();
    return items.Take();
  }
  items.Add("one block, quantized, packed for the forward", PackedBlock());
  items.Add(Windows(), Held(plan_.stream));
  const int64_t gram = MaxOverLinears(SquareOfInput) * kF32;
  items.Add(fmt::format("largest Gram matrix ({0} x {0}, F32)", widest()), gram);
  // The Gram matrix is there while its inputs are computed, and while its layers are solved. The
  // error of a solved layer is measured on some rows at a time, of which there are three copies.
  const int64_t forward = Scratch(plan_.stream) + SplitInputs();
  const int64_t error_rows = 3 * 512 * widest() * kF32;
  const int64_t work = std::max(forward, solve + error_rows);
  items.Add("the larger of: scratch of the forward; largest layer being solved", work);
  if (full_) {
    items.Add("full-precision activations and layers beside (--effort fast has none)",
              FullStream());
  }
  // The search runs before the block's layers are solved, with a forward of its own.
  const FoldingMemory folding = FoldingBytes(spec_, plan_);
  items.Add("search for scales of inputs, beyond what solving takes",
            folding.backend + folding.host + forward - gram - work);
  items.Add("lm_head, beyond what blocks take", kProcessBytes + head - items.total());
  total = items.total();
  return items.Take();
}

std::vector<PlanItem> Estimate::OfHost(int64_t& total) {
  Items items;
  items.Add("process, with the GPU's driver and libraries", kProcessBytes + kDriverBytes);
  int64_t elements = MaxOverLinears(Elements);
  if (HeadIsQuantized()) elements = std::max(elements, Elements(spec_.lm_head));
  // Rows whose error is measured: as they were, and as they are weighed.
  const int64_t layer = HostLayer(elements) + 2 * kErrorRows * widest() * kF32;
  items.Add("largest layer: weights in F32 and codes", layer);
  if (plan_.loads_ahead) {
    const bool folds = plan_.recipe.transform != Transform::kNone;
    items.Add("weights that are loaded ahead",
              MaxOverLinears(Elements) * (stored_ + (folds ? kF32 : 0)));
  }
  if (plan_.recipe.calibrated()) {
    int64_t activations = CalibrationStream::HostBytes(spec_, tokens(), plan_.stream);
    if (full_) activations += CalibrationStream::HostBytes(spec_, tokens(), full_options_);
    items.Add(Windows(), activations);
    items.Add("search for scales of inputs, beyond what solving takes",
              FoldingBytes(spec_, plan_).host - layer);
  }
  total = items.total();
  return items.Take();
}

// Scratch of the forward and its ops, of both streams: the activations that they are at, weights
// being decoded, or converted while they are loaded, inputs being rounded, and the difference of
// the streams' inputs.
int64_t Estimate::DeviceForward() const {
  const int64_t weights = MaxOverLinears(Elements);
  const int64_t loaded = std::max(std::min(weights, kDecodedWeights) * element_, weights * kF32);
  const std::vector<QuantizedModule>& modules = plan_.modules.all();
  const bool rounds_inputs = std::any_of(modules.begin(), modules.end(), [](const auto& module) {
    return module.scheme.input.type != InputScheme::Type::kNone;
  });
  const int64_t rows = std::max(plan_.stream.chunk_tokens, window());
  return Scratch(plan_.stream) +
         (full_ ? Scratch(full_options_) + window() * widest() * element_ : 0) + loaded +
         (rounds_inputs ? rows * widest() * kF32 : 0);
}

// Gram matrix, both cross matrices of the asymmetric target, blocks for two group sizes.
int64_t Estimate::DeviceStatistics(const LinearSpec& linear) const {
  return SquareOfInput(linear) * kF32 * (full_ ? 3 : 1) +
         2 * linear.in * std::min(linear.in, kGramBlock) * kF32;
}

// The square again, in F64 (where it can be factored in no other way), and the libraries' panels.
int64_t Estimate::DeviceFactor(const LinearSpec& linear) const {
  if (plan_.recipe.method == Method::kRtn) return SquareOfInput(linear) * kF32;
  return (SquareOfInput(linear) + linear.in * std::min(linear.in, kPanel)) * 2 * kF32;
}

// The weight, its target, and while that is found two shifts, their sum and a shift in solve order;
// or codes and the weight less its offsets. Beside them the scratch of the op that takes most:
// weighing errors (a square and some rows), applying the factor (two weights), refining (one, and
// its gradients).
int64_t Estimate::DeviceSolve(const LinearSpec& linear) const {
  const int64_t weight = Elements(linear) * kF32;
  const int64_t square = SquareOfInput(linear) * kF32;
  const int64_t weighing = square + std::min(linear.out, kWeighedRows) * linear.in * kF32;
  const int64_t refining = weight + linear.out * std::min(linear.in, kPanel) * kF32;
  const int64_t error_rows = std::min(linear.out, kErrorRows) * linear.in * kF32;
  const int64_t scratch = std::max({weighing, refining, full_ ? 2 * weight : 0});
  return (full_ ? 6 : 3) * weight + scratch + error_rows;
}

// The weight as it is stored and in F32, less its offsets, and codes.
int64_t Estimate::DeviceRounding(const LinearSpec& linear) const {
  return Elements(linear) * (stored_ + 2 * kF32 + 1) +
         std::min(linear.out, kErrorRows) * linear.in * kF32;
}

std::vector<PlanItem> Estimate::OfDevice(int64_t& total) {
  Items items;
  items.Add("driver and libraries", overhead_);
  const int64_t head = HeadIsQuantized() ? DeviceRounding(spec_.lm_head) : 0;
  if (!plan_.recipe.calibrated()) {
    items.Add("largest layer: weights and codes",
              std::max(head, MaxOverLinears([&](const LinearSpec& linear) {
                         return DeviceRounding(linear);
                       })));
    total = items.total();
    return items.Take();
  }
  const bool on_host = plan_.stream.activations_in_host_memory;
  items.Add("one block, quantized, packed for the forward", PackedBlock());
  items.Add(on_host ? "keys and values of a chunk" : Windows(), Held(plan_.stream));
  if (full_) {
    items.Add("full-precision activations and layers beside (--effort fast has none)",
              Held(full_options_) + DenseBlock());
  }
  if (plan_.loads_ahead) {
    // In F32, from what is stored; those of a next block take the place of the last one's.
    items.Add("weights that are loaded ahead",
              kWorkspaceEnds + MaxOverLinears(Elements) * (kF32 + stored_));
  }
  // Statistics are there while their inputs are computed, and while their layers are solved.
  const int64_t forward = DeviceForward();
  const auto work_of = [&](const LinearSpec& linear) {
    return kWorkspaceEnds + std::max({forward, DeviceFactor(linear), DeviceSolve(linear)});
  };
  const auto bytes_of = [&](const LinearSpec* linear) {
    return DeviceStatistics(*linear) + work_of(*linear);
  };
  const LinearSpec& most = **std::max_element(
      linears_.begin(), linears_.end(),
      [&](const LinearSpec* a, const LinearSpec* b) { return bytes_of(a) < bytes_of(b); });
  items.Add(fmt::format("statistics of {} inputs, F32", most.in), DeviceStatistics(most));
  items.Add("the largest of: scratch of the forward; factorization; layer being solved",
            work_of(most));
  // The search runs before the block's layers are solved, with a forward of its own.
  const FoldingMemory folding = FoldingBytes(spec_, plan_);
  if (folding.backend > 0) {
    const int64_t factor =
        MaxOverLinears([&](const LinearSpec& linear) { return DeviceFactor(linear); });
    items.Add("search for scales of inputs, beyond what solving takes",
              folding.backend + std::max(forward, factor) - bytes_of(&most));
  }
  items.Add("lm_head, beyond what blocks take", overhead_ + head - items.total());
  total = items.total();
  return items.Take();
}

}  // namespace

MemoryPlan EstimateMemory(const DecoderSpec& spec, DType stored, const QuantizePlan& plan,
                          const BackendInfo& backend) {
  Estimate estimate(spec, stored, plan, backend);
  MemoryPlan memory;
  if (backend.memory == 0) {
    memory.items = estimate.OfHostAlone(memory.total_bytes);
    return memory;
  }
  memory.items = estimate.OfHost(memory.total_bytes);
  memory.gpu_items = estimate.OfDevice(memory.gpu_bytes);
  return memory;
}

}  // namespace quantmill
