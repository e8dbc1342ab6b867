#include "quant/pipeline/quantize_run.h"

#include <algorithm>
#include <future>
#include <optional>
#include <utility>

#include "kernels/core/error.h"
#include "quant/calib/block_probe.h"
#include "quant/calib/calibration_stream.h"
#include "quant/model/block_source.h"
#include "quant/pipeline/block_rows.h"
#include "quant/pipeline/fold_block.h"
#include "quant/pipeline/plan_report.h"
#include "quant/pipeline/stopwatch.h"
#include "quant/pipeline/weights_ahead.h"
#include "quant/runtime/background_loader.h"
#include "quant/runtime/block_weights.h"
#include "quant/transform/static_inputs.h"
#include "quant/verify/verify_artifact.h"

namespace quantmill {
namespace {

// `linear` is solved.
SavedLayer SavedLayerOf(const QuantizePlan& plan, const LinearSpec& linear) {
  return {*plan.Find(linear.name), plan.BlocksOf(linear.name)};
}

}  // namespace

// The activations of the calibration text on their way through the model.
struct QuantizeRun::Streams {
  Streams(Backend& backend, Exec& exec, const ModelSource& source, const TokenWindows& windows,
          const QuantizePlan& plan, size_t blocks_to_quantize)
      : quantized(backend, exec, source, windows, plan.stream),
        blocks(blocks_to_quantize),
        loader(backend, exec, plan.loads_ahead) {
    if (!NeedsFullStream(plan.recipe, plan.modules.all())) return;
    StreamOptions options = plan.stream;
    options.keep_attention = false;
    options.keep_mlp = false;
    full.emplace(backend, exec, source, windows, options);
  }

  CalibrationStream quantized;            // through what was written
  std::optional<CalibrationStream> full;  // through the dense layers, for the asymmetric target
  size_t blocks;                          // that they will go through
  BackgroundLoader loader;
  std::future<BlockWeights> next_full;  // of `full` in the next block, where it is being loaded
};

// One block on its way: its dense weights, and the packed ones of both streams.
struct QuantizeRun::BlockInWork {
  size_t index;
  const BlockSpec& spec;
  BlockSource source;
  BlockWeights quantized;                 // filled in as its layers are solved
  std::optional<BlockWeights> full;       // of Streams::full
  std::unique_ptr<WeightsAhead> weights;  // for the solvers; knows where this object lies
};

void QuantizeRun::Progress(int64_t done, int64_t total, const std::string& layer) {
  ReportProgress(callbacks_, {"quantizing", done, total, layer, tokens_per_second_});
}

void QuantizeRun::Record(const LinearSpec& linear, ConstMatrix dense,
                         const LayerSolution& solution) {
  const SolveResult& solved = solution.solved;
  {
    const Stopwatch watch(report_.seconds.write);
    if (output_ != nullptr) output_->Write(linear.name, solution);
    if (savepoints_ != nullptr && savepoints_->started()) {
      savepoints_->Add(SavedLayerOf(plan_, linear), solution);
    }
  }
  const Stopwatch watch(report_.seconds.solve);
  LayerResult result;
  result.name = linear.name;
  const std::optional<GgmlType> blocks = plan_.BlocksOf(linear.name);
  result.scheme = blocks ? std::string(NameOf(*blocks)) : Describe(solved.linear.scheme);
  result.relative_error = solved.relative_error;
  result.rounded_error = solution.rounded_error;
  result.target_strength = solution.target_strength;
  result.weight_error =
      blocks ? WeightError(DecodeRows(*blocks, solution.rows, linear.out, linear.in), dense)
             : WeightError(solved.linear, dense, pool_);
  report_.layers.push_back(std::move(result));
  AddEvents(solved.events, linear.name);
}

void QuantizeRun::AddEvents(const std::vector<SolveEvent>& events, const std::string& where) {
  for (const SolveEvent& event : events) {
    switch (event.kind) {
      case SolveEvent::Kind::kDoublePrecision:
        AddEvent({"double_precision", where, event.detail, false});
        break;
      case SolveEvent::Kind::kDampingRaised:
        AddEvent({"damping_raised", where, event.detail, false});
        break;
      case SolveEvent::Kind::kRoundToNearestFallback:
        AddEvent({"round_to_nearest_fallback", where, event.detail, true});
        break;
      case SolveEvent::Kind::kDeadColumns:
        AddEvent({"dead_columns", where, event.detail, false});
        break;
    }
  }
}

void QuantizeRun::RoundLayer(const LinearSpec& linear) {
  const QuantizedModule* module = plan_.Find(linear.name);
  if (module == nullptr) return;  // stays dense
  LayerSolution solution;
  const DenseMatrix dense = source_.DenseWeight(linear);
  {
    Tensor weight = backend_.Empty(DType::kF32, linear.out, linear.in);
    {
      const Stopwatch watch(report_.seconds.load);
      backend_.Upload(exec_, dense, weight);
      exec_.stream.Synchronize();
    }
    const Stopwatch watch(report_.seconds.solve);
    solution =
        quantmill::RoundLayer(backend_, exec_, weight, module->scheme, plan_.BlocksOf(linear.name));
  }
  Record(linear, dense, solution);
  source_.Release(linear);
}

void QuantizeRun::RoundBlocks(size_t blocks) {
  const DecoderSpec& spec = source_.spec();
  std::vector<const LinearSpec*> linears;
  for (size_t index = 0; index < blocks; ++index) {
    for (const LinearSpec* linear : spec.blocks[index].Linears()) linears.push_back(linear);
  }
  if (blocks == spec.blocks.size()) linears.push_back(&spec.lm_head);
  int64_t done = 0;
  for (const LinearSpec* linear : linears) {
    Progress(done++, std::ssize(linears), linear->name);
    RoundLayer(*linear);
  }
}

TokenWindows QuantizeRun::ReadCalibration() {
  const Stopwatch watch(report_.seconds.load);
  const CalibrationRecipe& recipe = plan_.recipe.calibration;
  if (recipe.text.empty()) {
    AddEvent({"bundled_calibration", "--calib",
              "no calibration text was given: the bundled one is used. Text like that of your "
              "application gives a better model",
              false});
  }
  std::vector<int32_t> ids = ReadCalibrationIds(recipe.text, source_);
  const int64_t windows = std::ssize(ids) / recipe.sequence_length;
  TakeLastWindows(ids, std::min(recipe.held_out, windows), recipe.sequence_length);
  return CutCalibrationWindows(ids, recipe.samples, recipe.sequence_length, recipe.seed);
}

QuantizeRun::BlockInWork QuantizeRun::OpenBlock(size_t index, Streams& streams) {
  const BlockSpec& spec = source_.spec().blocks[index];
  BlockFolding folding;
  {
    const Stopwatch watch(report_.seconds.fold);
    folding =
        ChooseFolding(backend_, exec_, source_, spec, streams.quantized, plan_, report_.events);
  }
  const Stopwatch watch(report_.seconds.load);
  BlockInWork block{index, spec, BlockSource(source_, spec, std::move(folding)), {}, {}, {}};
  if (output_ != nullptr) output_->WriteFolding(block.source);
  block.quantized = LoadBlockExceptWeights(backend_, exec_, block.source, plan_.stream.compute);
  if (streams.full) {
    block.full = streams.next_full.valid()
                     ? streams.next_full.get()
                     : LoadBlock(backend_, exec_, block.source, plan_.stream.compute);
  }
  return block;
}

bool QuantizeRun::HasStoredInputScales(const BlockSpec& block, const SharedInput& input) const {
  const std::vector<const LinearSpec*> linears = block.LinearsAt(input);
  return std::any_of(linears.begin(), linears.end(), [&](const LinearSpec* linear) {
    const QuantizedModule* module = plan_.Find(linear->name);
    return module != nullptr && module->scheme.input.has_stored_scale();
  });
}

SiteStatistics QuantizeRun::Gather(const SharedInput& input, Streams& streams,
                                   const BlockInWork& block) {
  double sums = 0;
  double all = 0;
  SiteStatistics statistics;
  {
    const Stopwatch watch(all);
    statistics = GatherStatistics(
        backend_, exec_, streams.quantized, streams.full ? &*streams.full : nullptr, block.spec,
        block.quantized, block.full ? &*block.full : nullptr, input,
        HasStoredInputScales(block.spec, input), [&](const std::function<void()>& work) {
          const Stopwatch inner(sums);
          work();
        });
  }
  exec_.workspace.Trim();  // the forward's scratch is not kept while the site is solved
  report_.seconds.statistics += sums;
  report_.seconds.forward += all - sums;
  return statistics;
}

std::deque<const LinearSpec*> QuantizeRun::SolvedLinears(const BlockSpec& block) const {
  std::deque<const LinearSpec*> solved;
  for (const SharedInput& input : block.SharedInputs()) {
    for (const LinearSpec* linear : block.LinearsAt(input)) {
      if (plan_.Find(linear->name) != nullptr) solved.push_back(linear);
    }
  }
  return solved;
}

SiteSolver QuantizeRun::MakeSolver(const SharedInput& input, SiteStatistics statistics,
                                   Streams& streams, const BlockInWork& block) {
  std::vector<const QuantizedModule*> modules;
  std::optional<float> absmax;
  for (const LinearSpec* linear : block.spec.LinearsAt(input)) {
    const QuantizedModule* module = plan_.Find(linear->name);
    if (module == nullptr) continue;
    modules.push_back(module);
    if (!module->scheme.has_global_scale()) continue;
    const Stopwatch watch(report_.seconds.load);
    // In turn with what is loaded ahead: that is perhaps the same tensor.
    const auto largest = [&](Exec& exec) {
      return AbsMax(backend_, exec, LoadFloatWeight(backend_, exec, block.source, *linear));
    };
    absmax = std::max(absmax.value_or(0), streams.loader.Start(largest).get());
  }
  const Stopwatch watch(report_.seconds.solve);
  const auto global_scale = absmax ? std::optional(GlobalScaleFor(*absmax)) : std::nullopt;
  SiteSolver solver(backend_, exec_, plan_.recipe, std::move(statistics), modules,
                    "inputs of " + block.spec.prefix + " (" + NameOf(input) + ")", global_scale);
  exec_.workspace.Trim();  // nor is the factorization's
  return solver;
}

std::unique_ptr<PackedLinear> QuantizeRun::PackSolution(const LinearSpec& linear,
                                                        const LayerSolution& solution) {
  const std::optional<GgmlType> blocks = plan_.BlocksOf(linear.name);
  // Of those that HasOwnScales the codes say the same; they are not kept for a later run.
  if (!blocks || (HasOwnScales(*blocks) && !solution.solved.linear.codes.empty())) {
    return backend_.PackQuantized(exec_, solution.solved.linear, plan_.stream.compute);
  }
  const Tensor values = DecodeRows(*blocks, solution.rows, linear.out, linear.in);
  return backend_.PackDense(exec_, values, plan_.stream.compute);
}

void QuantizeRun::SolveLayer(const LinearSpec& linear, SiteSolver& solver, BlockInWork& block) {
  const QuantizedModule* module = plan_.Find(linear.name);
  LayerSolution solution;
  Tensor weight;
  {
    const Stopwatch watch(report_.seconds.load);
    weight = block.weights->Take(linear);
  }
  {
    const Stopwatch watch(report_.seconds.solve);
    solution = solver.Solve(weight, module->scheme, plan_.BlocksOf(linear.name));
  }
  if (block.source.Folds(linear)) {
    Record(linear, block.source.Weight(linear), solution);
  } else {
    const DenseMatrix dense = source_.DenseWeight(linear);
    Record(linear, dense, solution);
    source_.Release(linear);
  }
  const Stopwatch watch(report_.seconds.load);
  // What was written is what the later layers see.
  block.quantized.linears[BlockWeights::IndexOf(block.spec, linear)].weight =
      PackSolution(linear, solution);
}

void QuantizeRun::QuantizeInput(const SharedInput& input, Streams& streams, BlockInWork& block) {
  const std::vector<const LinearSpec*> linears = block.spec.LinearsAt(input);
  const auto stays_dense = [&](const LinearSpec* l) { return plan_.Find(l->name) == nullptr; };
  for (const LinearSpec* linear : linears) {
    if (!stays_dense(linear)) continue;
    const Stopwatch watch(report_.seconds.load);
    block.quantized.linears[BlockWeights::IndexOf(block.spec, *linear)].weight =
        backend_.PackDense(exec_, block.source.Weight(*linear), plan_.stream.compute);
  }
  const bool solves = !std::all_of(linears.begin(), linears.end(), stays_dense);
  const bool advances = streams.full && BlockForward::ReadsCarried(block.spec, input.site);
  if (!solves && !advances) return;
  SiteStatistics statistics = Gather(input, streams, block);
  if (input.site == Site::kMlpOut && !block.spec.is_mixture()) LoadNextFull(streams, block);
  if (!solves) return;
  SiteSolver solver = MakeSolver(input, std::move(statistics), streams, block);
  for (const LinearSpec* linear : linears) {
    if (!stays_dense(linear)) SolveLayer(*linear, solver, block);
  }
}

void QuantizeRun::QuantizeSite(Site site, Streams& streams, BlockInWork& block) {
  const bool mixes = site == Site::kMlpOut && block.spec.is_mixture();
  if (mixes) ReportCoverage(streams, block);
  for (const SharedInput& input : block.spec.SharedInputs()) {
    if (input.site == site) QuantizeInput(input, streams, block);
  }
  if (!mixes || !streams.full) return;
  {
    const Stopwatch watch(report_.seconds.forward);
    streams.full->Advance(block.spec, *block.full, site);
  }
  LoadNextFull(streams, block);
}

void QuantizeRun::LoadNextFull(Streams& streams, BlockInWork& block) {
  block.full.reset();
  const size_t next = block.index + 1;
  // Scales that are folded into it are not known yet.
  if (!streams.full || next == streams.blocks || plan_.recipe.transform != Transform::kNone) return;
  streams.next_full = streams.loader.Start([this, next](Exec& exec) {
    return LoadBlock(backend_, exec, source_, source_.spec().blocks[next], plan_.stream.compute);
  });
}

void QuantizeRun::ReportCoverage(Streams& streams, const BlockInWork& block) {
  const Stopwatch watch(report_.seconds.forward);
  MixtureCoverage coverage;
  coverage.block = block.spec.prefix;
  coverage.top_k = block.spec.mixture.top_k;
  coverage.tokens = streams.quantized.CountRouted(block.spec, block.quantized);
  if (std::optional<Event> event = UnreachedExperts(coverage)) AddEvent(std::move(*event));
  report_.mixtures.push_back(std::move(coverage));
}

void QuantizeRun::QuantizeBlock(size_t index, Streams& streams, BlockRecord& record) {
  const DecoderSpec& spec = source_.spec();
  const BlockSpec& block_spec = spec.blocks[index];
  const auto total = static_cast<int64_t>(spec.blocks.size() * kSites.size());
  auto done = static_cast<int64_t>(index * kSites.size());
  BlockInWork block = OpenBlock(index, streams);
  record.folding = block.source.folding();
  block.weights = std::make_unique<WeightsAhead>(backend_, streams.loader, block.source,
                                                 SolvedLinears(block_spec));
  for (const Site site : kSites) {
    Progress(done++, total, block_spec.prefix + ": " + NameOf(site));
    QuantizeSite(site, streams, block);
    const bool last = site == Site::kMlpOut && index + 1 == spec.blocks.size();
    if (last) break;  // nobody reads the output of the last layer
    const Stopwatch watch(report_.seconds.forward);
    streams.quantized.Advance(block_spec, block.quantized, site);
  }
}

void QuantizeRun::QuantizeBlockAndCache(size_t index, Streams& streams, BlockRecord& record) {
  const DecoderSpec& spec = source_.spec();
  if (plan_.recipe.kv.type == KvScheme::Type::kNone) return QuantizeBlock(index, streams, record);
  KeyValueRange range(backend_, exec_, spec.kv_heads, spec.head_dim);
  streams.quantized.ObserveKeysValues(
      [&](ConstMatrix keys, ConstMatrix values) { range.Add(keys, values); });
  QuantizeBlock(index, streams, record);
  streams.quantized.ObserveKeysValues({});
  const bool per_head = plan_.recipe.kv.per_head;
  record.kv = {Fp8CacheScales(range.KeyAbsMax(), per_head),
               Fp8CacheScales(range.ValueAbsMax(), per_head)};
  if (output_ != nullptr) output_->WriteKv(spec.blocks[index], *record.kv);
}

void QuantizeRun::QuantizeAndSave(size_t index, Streams& streams) {
  BlockRecord record;
  if (savepoints_ == nullptr) return QuantizeBlockAndCache(index, streams, record);
  const ReportMark before = MarkOf(report_);
  std::vector<SavedLayer> layers;
  for (const LinearSpec* linear : SolvedLinears(source_.spec().blocks[index])) {
    layers.push_back(SavedLayerOf(plan_, *linear));
  }
  savepoints_->Start(layers);
  QuantizeBlockAndCache(index, streams, record);
  const Stopwatch watch(report_.seconds.write);
  savepoints_->Finish(RecordJson(report_, before, record));
}

BlockWeights QuantizeRun::ReplayedWeights(const SavedBlock& saved, const BlockSource& block) {
  BlockWeights weights = LoadBlockExceptWeights(backend_, exec_, block, plan_.stream.compute);
  for (const LinearSpec* linear : block.block().Linears()) {
    std::unique_ptr<PackedLinear>& weight =
        weights.linears[BlockWeights::IndexOf(block.block(), *linear)].weight;
    if (plan_.Find(linear->name) == nullptr) {
      weight = backend_.PackDense(exec_, block.Weight(*linear), plan_.stream.compute);
      continue;
    }
    const LayerSolution solution = saved.Read(SavedLayerOf(plan_, *linear));
    if (output_ != nullptr) output_->Write(linear->name, solution);
    weight = PackSolution(*linear, solution);
  }
  return weights;
}

void QuantizeRun::ReplayBlock(size_t index, Streams& streams) {
  const DecoderSpec& spec = source_.spec();
  const BlockSpec& block = spec.blocks[index];
  const SavedBlock saved = savepoints_->Open(index);
  const BlockRecord record =
      ReadRecord(saved.record(), spec, block, savepoints_->path().string(), report_);
  const BlockSource folded(source_, block, record.folding);
  if (output_ != nullptr) {
    output_->WriteFolding(folded);
    if (record.kv) output_->WriteKv(block, *record.kv);
  }
  const auto advance = [&](CalibrationStream& stream, const BlockWeights& weights) {
    if (index + 1 == spec.blocks.size()) return;  // nobody reads the output of the last layer
    const Stopwatch watch(report_.seconds.forward);
    for (const Site site : kSites) stream.Advance(block, weights, site);
  };
  advance(streams.quantized, ReplayedWeights(saved, folded));
  if (!streams.full) return;
  advance(*streams.full, LoadBlock(backend_, exec_, folded, plan_.stream.compute));
}

std::string QuantizeRun::CalibrateAndSolve(size_t blocks) {
  const TokenWindows windows = ReadCalibration();
  std::string hash = HashTokens(windows.ids);
  report_.calibration_tokens = windows.tokens();
  if (savepoints_ != nullptr) {
    savepoints_->Begin(RunIdentity(source_, plan_, report_.backend_isa, hash));
  }
  const size_t finished = savepoints_ == nullptr ? 0 : savepoints_->blocks();
  if (std::optional<Event> event = ShortCalibration(plan_)) AddEvent(std::move(*event));
  const DecoderSpec& spec = source_.spec();
  std::optional<Streams> streams(std::in_place, backend_, exec_, source_, windows, plan_, blocks);
  for (size_t index = 0; index < finished; ++index) {
    Progress(static_cast<int64_t>(index * kSites.size()),
             static_cast<int64_t>(blocks * kSites.size()),
             spec.blocks[index].prefix + ": finished by an earlier run");
    ReplayBlock(index, *streams);
  }
  for (size_t index = finished; index < blocks; ++index) {
    QuantizeAndSave(index, *streams);
    const PhaseSeconds& s = report_.seconds;
    const double so_far = s.fold + s.forward + s.statistics + s.solve + s.write;
    tokens_per_second_ =
        static_cast<double>(windows.tokens()) * static_cast<double>(index + 1) / so_far;
  }
  streams.reset();
  exec_.workspace.Trim();
  // Its error reaches no other layer, and 8 bits leave nothing to compensate.
  if (blocks == spec.blocks.size()) RoundLayer(spec.lm_head);
  return hash;
}

}  // namespace quantmill
