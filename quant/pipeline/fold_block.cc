#include "quant/pipeline/fold_block.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "kernels/core/error.h"
#include "quant/calib/block_probe.h"
#include "quant/pipeline/site_solver.h"
#include "quant/runtime/block_weights.h"
#include "quant/solve/gptq.h"
#include "quant/solve/rtn.h"
#include "quant/solve/scale_search.h"
#include "quant/transform/awq.h"
#include "quant/transform/expected_error.h"
#include "quant/transform/rounding_score.h"
#include "quant/transform/smoothquant.h"
#include "quant/transform/static_inputs.h"

namespace quantmill {
namespace {

constexpr int64_t kSampleTokens = 256;  // whose inputs are kept, for the error of rounding them
constexpr int64_t kConfirmTokens = 2048;
// Weights of a site that the searches see: all rows of small layers, an even sample of large ones.
constexpr int64_t kMostWeights = int64_t{1} << 20;
// A gain below this share of the error is noise.
constexpr double kLeastGain = 1e-3;
// Candidates of AWQ that are scored as the solver will round them.
constexpr int64_t kFinalists = 4;

int64_t WindowsFor(int64_t tokens, const CalibrationStream& stream) {
  return std::clamp<int64_t>(tokens / stream.window(), 1, stream.windows());
}

const LinearSpec* ProducerOf(const BlockSpec& block, const SharedInput& input) {
  if (input.site == Site::kAttentionOut) return block.Stored(block.value).linear;
  if (input.site != Site::kMlpOut) return nullptr;  // a norm
  if (input.expert == SharedInput::kNoExpert) return block.Stored(block.up).linear;
  return &block.mixture.experts[static_cast<size_t>(input.expert)].up;
}

// Inputs whose scales are tried on the block's output together: those of all experts, of which each
// token sees a few alone, and the others one by one.
std::vector<std::vector<SharedInput>> TrialsOf(const BlockSpec& block) {
  std::vector<std::vector<SharedInput>> trials;
  for (const SharedInput& input : block.SharedInputs()) {
    if (input.expert > 0) {
      trials.back().push_back(input);
    } else {
      trials.push_back({input});
    }
  }
  return trials;
}

// The nearest powers of two.
std::vector<float> PowersOfTwo(std::vector<float> scales) {
  for (float& s : scales) s = std::exp2(std::round(std::log2(s)));
  return scales;
}

std::vector<BF16> AsBF16(const std::vector<float>& scales) {
  std::vector<BF16> rounded;
  rounded.reserve(scales.size());
  for (const float s : scales) rounded.push_back(ToBF16(s));
  return rounded;
}

class FoldSearch {
 public:
  FoldSearch(Backend& backend, Exec& exec, const ModelSource& source, const BlockSpec& block,
             CalibrationStream& stream, const QuantizePlan& plan, std::vector<Event>& events)
      : backend_(backend),
        exec_(exec),
        source_(source),
        block_(block),
        stream_(stream),
        plan_(plan),
        events_(events) {}

  BlockFolding Run() {
    const Compute compute = plan_.stream.compute;
    std::optional<BlockWeights> dense =
        LoadBlock(backend_, exec_, BlockSource(source_, block_), compute);
    ProbedBlock probed = ProbeInputs(backend_, exec_, stream_, block_, *dense,
                                     WindowsFor(kFoldingStatisticsTokens, stream_), kSampleTokens);
    statistics_ = std::move(probed.inputs);
    OutputProbe output(backend_, exec_, stream_, block_, *dense,
                       WindowsFor(kConfirmTokens, stream_));
    if (!block_.is_mixture()) dense.reset();
    exec_.workspace.Trim();
    BlockFolding found;
    for (const SharedInput& input : block_.SharedInputs()) {
      if (!statistics_.contains(input)) {
        statistics_.emplace(input, ProbeExpert(backend_, exec_, stream_, block_, *dense, input,
                                               probed.mixture_input, kSampleTokens));
      }
      if (CanFold(input)) {
        const std::vector<float> scales = Search(input);
        if (!scales.empty()) found.at(input) = AsBF16(scales);
      }
      StatisticsOf(input).gram = {};
    }
    dense.reset();
    probed.mixture_input = {};
    return Confirm(found, output);
  }

 private:
  ProbedInputs& StatisticsOf(const SharedInput& input) { return statistics_.at(input); }
  // Of the inputs as they are; empty where the solver does not search scales.
  const Tensor& BlocksOf(const SharedInput& input) { return blocks_[input]; }
  std::string PlaceOf(const SharedInput& input) const {
    return block_.prefix + ": " + NameOf(input);
  }
  const QuantScheme& SchemeAt(const SharedInput& input) const {
    return plan_.Find(block_.LinearsAt(input).front()->name)->scheme;
  }

  bool CanFold(const SharedInput& input) const;
  std::vector<float> Search(const SharedInput& input);
  FoldProblem Problem(const SharedInput& input);
  // Scales that may be folded at `input`, near these: what else reads it must stay exact.
  std::vector<float> Allowed(const SharedInput& input, std::vector<float> scales) const;
  std::vector<float> SearchAwq(const FoldProblem& problem, const SharedInput& input);
  std::vector<float> Smooth(const FoldProblem& problem, const SharedInput& input) const;
  void SetImportance(const SharedInput& input, FoldProblem& problem);
  void ReportOutliers(const SharedInput& input, const FoldProblem& problem);
  BlockFolding Confirm(const BlockFolding& found, OutputProbe& output);
  // Packs those of `which` into `to`, as the solver rounds in the first place.
  void Round(const BlockSource& folded, const std::set<const LinearSpec*>& which, BlockWeights& to);
  Grid ChooseGrid(const BlockSource& folded, const LinearSpec& linear, ConstMatrix weight,
                  const SharedInput& input);
  std::unique_ptr<PackedLinear> Rounded(const BlockSource& folded, const LinearSpec& linear,
                                        const SharedInput& input);

  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  const BlockSpec& block_;
  CalibrationStream& stream_;
  const QuantizePlan& plan_;
  std::vector<Event>& events_;
  std::map<SharedInput, ProbedInputs> statistics_;
  std::map<SharedInput, Tensor> blocks_;
};

bool FoldSearch::CanFold(const SharedInput& input) const {
  if (!IsFoldable(source_.spec(), block_, input)) return false;
  const LinearSpec* producer = ProducerOf(block_, input);
  if (producer != nullptr && plan_.Find(producer->name) == nullptr) return false;
  const std::vector<const LinearSpec*> linears = block_.LinearsAt(input);
  return std::all_of(linears.begin(), linears.end(), [&](const LinearSpec* linear) {
    const QuantizedModule* module = plan_.Find(linear->name);
    return module != nullptr && module->scheme == SchemeAt(input);
  });
}

FoldProblem FoldSearch::Problem(const SharedInput& input) {
  const ProbedInputs& statistics = StatisticsOf(input);
  const DecoderSpec& spec = source_.spec();
  const int64_t in = block_.LinearsAt(input).front()->in;
  FoldProblem problem;
  problem.scheme = SchemeAt(input);
  problem.scales = FoldedWidth(spec, block_, input);
  problem.mean_square = DiagonalOf(backend_, exec_, statistics.gram);
  for (float& square : problem.mean_square) square /= static_cast<float>(statistics.tokens);
  for (int64_t i = 0; i < in; ++i) {
    problem.scale_of.push_back(static_cast<int32_t>(FoldedIndex(spec, input.site, i)));
    const auto at = static_cast<size_t>(i);
    problem.absmax.push_back(std::max(std::abs(statistics.lo[at]), std::abs(statistics.hi[at])));
  }

  int64_t rows = 0;
  for (const LinearSpec* linear : block_.LinearsAt(input)) rows += linear->out;
  const std::vector<int64_t> sample = SampleRows(rows, std::max<int64_t>(128, kMostWeights / in));
  problem.weight = HostTensor(DType::kF32, std::ssize(sample), in);
  int64_t first = 0;
  size_t taken = 0;
  for (const LinearSpec* linear : block_.LinearsAt(input)) {
    const DenseMatrix stored = source_.DenseWeight(*linear);
    for (; taken < sample.size() && sample[taken] < first + linear->out; ++taken) {
      WidenRow(stored, sample[taken] - first,
               problem.weight.Row<float>(static_cast<int64_t>(taken)));
    }
    first += linear->out;
    source_.Release(*linear);
  }

  const InputScheme& rounding = problem.scheme.input;
  if (rounding.type == InputScheme::Type::kNone) return problem;
  if (rounding.dynamic) {
    problem.sample = std::move(StatisticsOf(input).sample);
  } else {  // one scale for all tokens: as if each had the largest of all
    problem.sample = HostTensor(DType::kF32, 1, in);
    std::copy(problem.absmax.begin(), problem.absmax.end(), problem.sample.Row<float>(0));
  }
  return problem;
}

// GPTQ moves errors onto the columns still open; what it cannot move of column k is the pivot of
// the factorization, 1 / R_kk^2.
void FoldSearch::SetImportance(const SharedInput& input, FoldProblem& problem) {
  problem.importance = problem.mean_square;
  if (plan_.recipe.method != Method::kGptq) return;
  ProbedInputs& statistics = StatisticsOf(input);
  GptqOptions options;
  options.act_order = plan_.recipe.act_order;
  options.damp_percent = plan_.recipe.damp_percent;
  const GptqFactor factor = PrepareGptq(backend_, exec_, std::move(statistics.gram), options);
  if (!factor.ok()) return;  // the solver will report it, and round
  const std::vector<float> pivots = DiagonalOf(backend_, exec_, factor.gram());
  for (size_t k = 0; k < pivots.size(); ++k) {
    const auto column = static_cast<size_t>(factor.order()[k]);
    problem.importance[column] =
        factor.dead()[column] ? 0
                              : 1 / (pivots[k] * pivots[k]) / static_cast<float>(statistics.tokens);
  }
}

std::vector<float> FoldSearch::Allowed(const SharedInput& input, std::vector<float> scales) const {
  const bool routes = input.site == Site::kMlpIn && block_.is_mixture();
  return routes ? PowersOfTwo(std::move(scales)) : scales;
}

std::vector<float> FoldSearch::Search(const SharedInput& input) {
  FoldProblem problem = Problem(input);
  if (PlanSolve(plan_.recipe, problem.scheme).search_scales) {
    blocks_[input] = GramBlocks(backend_, exec_, StatisticsOf(input).gram, problem.scheme);
  }
  SetImportance(input, problem);
  if (plan_.recipe.transform == Transform::kAwq) return SearchAwq(problem, input);
  ReportOutliers(input, problem);
  return Smooth(problem, input);
}

// Empty: identity. All candidates are ranked on the smallest grid; the best ones and identity are
// then scored on the grid that the solver will use.
std::vector<float> FoldSearch::SearchAwq(const FoldProblem& problem, const SharedInput& input) {
  RoundingScore score(backend_, exec_, problem, StatisticsOf(input).gram);
  const std::vector<float> ones(static_cast<size_t>(problem.scales), 1.0f);
  using Ranked = std::pair<double, std::vector<float>>;
  std::vector<Ranked> ranked;
  for (std::vector<float>& proposed : AwqCandidates(problem)) {
    std::vector<float> candidate = Allowed(input, std::move(proposed));
    const double error = score.OnSmallestGrid(candidate);
    ranked.emplace_back(error, std::move(candidate));
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Ranked& a, const Ranked& b) { return a.first < b.first; });
  if (std::ssize(ranked) > kFinalists) ranked.resize(static_cast<size_t>(kFinalists));
  if (HasExpectedError(problem.scheme)) {
    std::vector<float> balanced =
        ExpectedError(problem).Balance(ranked.empty() ? ones : ranked[0].second);
    ranked.emplace_back(0, Allowed(input, std::move(balanced)));
  }
  const ConstMatrix blocks = BlocksOf(input);
  const auto error_of = [&](const std::vector<float>& scales) {
    return blocks.data == nullptr ? score.OnSmallestGrid(scales)
                                  : score.OnSearchedGrid(scales, blocks);
  };
  std::vector<float> best;
  double least = error_of(ones) * (1 - kLeastGain);
  for (auto& [unused, candidate] : ranked) {
    const double error = error_of(candidate);
    if (!(error < least)) continue;
    least = error;
    best = std::move(candidate);
  }
  return best;
}

std::vector<float> FoldSearch::Smooth(const FoldProblem& problem, const SharedInput& input) const {
  if (plan_.recipe.smoothing_alpha) {
    return Allowed(input, SmoothingScales(problem, *plan_.recipe.smoothing_alpha));
  }
  // Numbers of few bits have errors in proportion to themselves: scales change nothing there.
  if (!HasExpectedError(problem.scheme)) return {};
  const std::vector<float> ones(static_cast<size_t>(problem.scales), 1.0f);
  std::vector<float> best;
  ExpectedError expected(problem);
  double least = expected.At(ones).total() * (1 - kLeastGain);
  const auto consider = [&](std::vector<float> proposed) {
    std::vector<float> candidate = Allowed(input, std::move(proposed));
    const double error = expected.At(candidate).total();
    if (!(error < least)) return;
    least = error;
    best = std::move(candidate);
  };
  for (std::vector<float>& candidate : SmoothingCandidates(problem)) consider(std::move(candidate));
  consider(expected.Balance(best.empty() ? ones : best));
  return best;
}

void FoldSearch::ReportOutliers(const SharedInput& input, const FoldProblem& problem) {
  const OutlierChannels outliers = FindOutliers(problem.absmax);
  if (outliers.count == 0) return;
  events_.push_back(
      {"outlier_channels", PlaceOf(input),
       fmt::format("{} of {} input channels reach more than {:.0f} times the median channel's "
                   "largest magnitude; channel {} reaches {:.0f} times",
                   outliers.count, problem.absmax.size(), kOutlierRatio, outliers.largest,
                   outliers.ratio),
       false});
}

Grid FoldSearch::ChooseGrid(const BlockSource& folded, const LinearSpec& linear, ConstMatrix weight,
                            const SharedInput& input) {
  const QuantScheme& scheme = plan_.Find(linear.name)->scheme;
  if (BlocksOf(input).empty()) return MinMax(backend_, exec_, weight, scheme);
  const std::vector<float>& columns = folded.ColumnScales(linear);
  if (columns.empty()) return SearchScales(backend_, exec_, weight, BlocksOf(input), scheme);
  return SearchScales(backend_, exec_, weight,
                      ScaledBlocks(backend_, exec_, BlocksOf(input), columns), scheme);
}

std::unique_ptr<PackedLinear> FoldSearch::Rounded(const BlockSource& folded,
                                                  const LinearSpec& linear,
                                                  const SharedInput& input) {
  const QuantizedModule* module = plan_.Find(linear.name);
  const Tensor host = folded.Weight(linear);
  if (module == nullptr) return backend_.PackDense(exec_, host, plan_.stream.compute);
  const Tensor weight = backend_.Empty(DType::kF32, linear.out, linear.in);
  backend_.Upload(exec_, host, weight);
  QuantizedLinear rounded =
      SolveRtn(backend_, exec_, weight, module->scheme, ChooseGrid(folded, linear, weight, input))
          .linear;
  if (module->scheme.input.has_stored_scale()) {
    const ProbedInputs& statistics = StatisticsOf(input);
    SetStaticInput(RangeOfInputs(statistics.lo, statistics.hi, folded.ColumnScales(linear)),
                   rounded);
  }
  return backend_.PackQuantized(exec_, rounded, plan_.stream.compute);
}

void FoldSearch::Round(const BlockSource& folded, const std::set<const LinearSpec*>& which,
                       BlockWeights& to) {
  for (const SharedInput& input : block_.SharedInputs()) {
    for (const LinearSpec* linear : block_.LinearsAt(input)) {
      if (!which.contains(linear)) continue;
      to.linears[BlockWeights::IndexOf(block_, *linear)].weight = Rounded(folded, *linear, input);
    }
  }
}

// Trial by trial: what does not bring the rounded block's output closer to the dense one's is
// undone.
BlockFolding FoldSearch::Confirm(const BlockFolding& found, OutputProbe& output) {
  BlockFolding kept;
  if (found.identity()) return kept;
  const Compute compute = plan_.stream.compute;
  const BlockSource plain(source_, block_);
  BlockWeights weights = LoadBlockExceptWeights(backend_, exec_, plain, compute);
  const std::vector<const LinearSpec*> linears = block_.Linears();
  Round(plain, {linears.begin(), linears.end()}, weights);
  double least = output.Error(weights);
  for (const std::vector<SharedInput>& inputs : TrialsOf(block_)) {
    BlockFolding tried = kept;
    std::set<const LinearSpec*> changed;
    for (const SharedInput& input : inputs) {
      if (found.at(input).empty()) continue;
      tried.at(input) = found.at(input);
      for (const LinearSpec* linear : block_.LinearsAt(input)) changed.insert(linear);
      if (const LinearSpec* producer = ProducerOf(block_, input)) changed.insert(producer);
    }
    if (changed.empty()) continue;
    const BlockSource folded(source_, block_, tried);
    BlockWeights trial = LoadBlockExceptWeights(backend_, exec_, folded, compute);
    Round(folded, changed, trial);
    for (size_t i = 0; i < linears.size(); ++i) {
      if (trial.linears[i].weight == nullptr)
        std::swap(trial.linears[i].weight, weights.linears[i].weight);
    }
    const double error = output.Error(trial);
    if (error < least) {
      least = error;
      kept = tried;
      weights = std::move(trial);
      continue;
    }
    events_.push_back({"folding_kept_identity",
                       inputs.size() > 1 ? block_.prefix + ": mlp outputs of all experts"
                                         : PlaceOf(inputs.front()),
                       fmt::format("the scales found would raise the error of the block's output "
                                   "by {:.1f} %: not folded",
                                   100 * (error / least - 1)),
                       false});
    for (size_t i = 0; i < linears.size(); ++i) {
      if (weights.linears[i].weight == nullptr)
        std::swap(trial.linears[i].weight, weights.linears[i].weight);
    }
  }
  return kept;
}

// The most of any block.
FoldingMemory FoldingBytesOf(const BlockSpec& block, const DecoderSpec& spec) {
  int64_t weights = 0;
  for (const LinearSpec* linear : block.Linears()) weights += linear->out * linear->in;
  int64_t grams = 0;
  int64_t largest = 0;
  int64_t inputs = 0;
  int64_t largest_expert = 0;  // their Gram matrices are not there together
  for (const SharedInput& input : block.SharedInputs()) {
    const int64_t in = block.LinearsAt(input).front()->in;
    const bool alone = block.is_mixture() && input.site == Site::kMlpOut;
    (alone ? largest_expert : grams) = alone ? std::max(largest_expert, in * in) : grams + in * in;
    largest = std::max(largest, in * in);
    inputs += in;
  }
  const int64_t kept = block.is_mixture() ? kFoldingStatisticsTokens * spec.hidden : 0;
  const auto f32 = static_cast<int64_t>(sizeof(float));
  // The dense block; all Gram matrices and the square that scores; inputs of experts. What the
  // searches see of the weights, and the magnitudes of the descent beside it; outputs.
  return {(weights + grams + largest_expert + 2 * largest + kept) * f32,
          (3 * kMostWeights + kSampleTokens * inputs + 2 * kConfirmTokens * spec.hidden) * f32};
}

}  // namespace

FoldingMemory FoldingBytes(const DecoderSpec& spec, const QuantizePlan& plan) {
  FoldingMemory most;
  if (plan.recipe.transform == Transform::kNone) return most;
  for (const BlockSpec& block : spec.blocks) {
    const FoldingMemory bytes = FoldingBytesOf(block, spec);
    most = {std::max(most.backend, bytes.backend), std::max(most.host, bytes.host)};
  }
  return most;
}

BlockFolding ChooseFolding(Backend& backend, Exec& exec, const ModelSource& source,
                           const BlockSpec& block, CalibrationStream& stream,
                           const QuantizePlan& plan, std::vector<Event>& events) {
  if (plan.recipe.transform == Transform::kNone) return {};
  return FoldSearch(backend, exec, source, block, stream, plan, events).Run();
}

}  // namespace quantmill
