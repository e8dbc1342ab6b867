#include "quant/pipeline/fold_block.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
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

const LinearSpec* ProducerOf(const BlockSpec& block, Site site) {
  if (site == Site::kAttentionOut) return block.Stored(block.value).linear;
  if (site == Site::kMlpOut) return block.Stored(block.up).linear;
  return nullptr;  // a norm
}

std::vector<BF16> AsBF16(const std::vector<float>& scales) {
  std::vector<BF16> rounded;
  rounded.reserve(scales.size());
  for (const float s : scales) rounded.push_back(ToBF16(s));
  return rounded;
}

std::vector<float> DiagonalOf(Backend& backend, Exec& exec, ConstMatrix square) {
  std::vector<float> diagonal(static_cast<size_t>(square.rows));
  const ConstMatrix view{square.data, square.dtype, square.rows, 1, square.stride + 1};
  backend.Download(exec, view, MutableViewOf(diagonal.data(), square.rows, 1));
  return diagonal;
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
    std::optional<OutputProbe> output;
    {
      const BlockWeights dense = LoadBlock(backend_, exec_, BlockSource(source_, block_), compute);
      statistics_ = ProbeInputs(backend_, exec_, stream_, block_, dense,
                                WindowsFor(kFoldingStatisticsTokens, stream_), kSampleTokens);
      output.emplace(backend_, exec_, stream_, block_, dense, WindowsFor(kConfirmTokens, stream_));
    }
    exec_.workspace.Trim();
    BlockFolding found;
    for (const Site site : kSites) {
      if (!CanFold(site)) continue;
      const std::vector<float> scales = Search(site);
      if (!scales.empty()) found.at(site) = AsBF16(scales);
      StatisticsOf(site).gram = {};
    }
    return Confirm(found, *output);
  }

 private:
  ProbedInputs& StatisticsOf(Site site) { return statistics_[static_cast<size_t>(site)]; }
  // Of the inputs as they are; empty where the solver does not search scales.
  const Tensor& BlocksOf(Site site) const { return blocks_[static_cast<size_t>(site)]; }
  std::string PlaceOf(Site site) const { return block_.prefix + ": " + NameOf(site); }
  const QuantScheme& SchemeAt(Site site) const {
    return plan_.Find(block_.LinearsAt(site).front()->name)->scheme;
  }

  bool CanFold(Site site) const;
  std::vector<float> Search(Site site);
  FoldProblem Problem(Site site);
  std::vector<float> SearchAwq(const FoldProblem& problem, Site site);
  std::vector<float> Smooth(const FoldProblem& problem) const;
  void SetImportance(Site site, FoldProblem& problem);
  void ReportOutliers(Site site, const FoldProblem& problem);
  BlockFolding Confirm(const BlockFolding& found, OutputProbe& output);
  // As the solver rounds, in the first place.
  Grid ChooseGrid(const BlockSource& folded, const LinearSpec& linear, ConstMatrix weight,
                  Site site);
  std::unique_ptr<PackedLinear> Rounded(const BlockSource& folded, const LinearSpec& linear,
                                        Site site);

  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  const BlockSpec& block_;
  CalibrationStream& stream_;
  const QuantizePlan& plan_;
  std::vector<Event>& events_;
  ProbedBlock statistics_;
  std::array<Tensor, kSites.size()> blocks_;
};

bool FoldSearch::CanFold(Site site) const {
  if (!IsFoldable(source_.spec(), block_, site)) return false;
  const LinearSpec* producer = ProducerOf(block_, site);
  if (producer != nullptr && plan_.Find(producer->name) == nullptr) return false;
  const std::vector<const LinearSpec*> linears = block_.LinearsAt(site);
  return std::all_of(linears.begin(), linears.end(), [&](const LinearSpec* linear) {
    const QuantizedModule* module = plan_.Find(linear->name);
    return module != nullptr && module->scheme == SchemeAt(site);
  });
}

FoldProblem FoldSearch::Problem(Site site) {
  const ProbedInputs& statistics = StatisticsOf(site);
  const DecoderSpec& spec = source_.spec();
  const int64_t in = block_.LinearsAt(site).front()->in;
  FoldProblem problem;
  problem.scheme = SchemeAt(site);
  problem.scales = FoldedWidth(spec, site);
  problem.mean_square = DiagonalOf(backend_, exec_, statistics.gram);
  for (float& square : problem.mean_square) square /= static_cast<float>(statistics.tokens);
  for (int64_t i = 0; i < in; ++i) {
    problem.scale_of.push_back(static_cast<int32_t>(FoldedIndex(spec, site, i)));
    const auto at = static_cast<size_t>(i);
    problem.absmax.push_back(std::max(std::abs(statistics.lo[at]), std::abs(statistics.hi[at])));
  }

  int64_t rows = 0;
  for (const LinearSpec* linear : block_.LinearsAt(site)) rows += linear->out;
  const std::vector<int64_t> sample = SampleRows(rows, std::max<int64_t>(128, kMostWeights / in));
  problem.weight = HostTensor(DType::kF32, std::ssize(sample), in);
  int64_t first = 0;
  size_t taken = 0;
  for (const LinearSpec* linear : block_.LinearsAt(site)) {
    const DenseMatrix stored = source_.DenseWeight(*linear);
    for (; taken < sample.size() && sample[taken] < first + linear->out; ++taken) {
      WidenRow(stored, sample[taken] - first,
               problem.weight.Row<float>(static_cast<int64_t>(taken)));
    }
    first += linear->out;
    source_.Release(*linear);
  }

  const InputScheme& input = problem.scheme.input;
  if (input.type == InputScheme::Type::kNone) return problem;
  if (input.dynamic) {
    problem.sample = std::move(StatisticsOf(site).sample);
  } else {  // one scale for all tokens: as if each had the largest of all
    problem.sample = HostTensor(DType::kF32, 1, in);
    std::copy(problem.absmax.begin(), problem.absmax.end(), problem.sample.Row<float>(0));
  }
  return problem;
}

// GPTQ moves errors onto the columns still open; what it cannot move of column k is the pivot of
// the factorization, 1 / R_kk^2.
void FoldSearch::SetImportance(Site site, FoldProblem& problem) {
  problem.importance = problem.mean_square;
  if (plan_.recipe.method != Method::kGptq) return;
  ProbedInputs& statistics = StatisticsOf(site);
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

std::vector<float> FoldSearch::Search(Site site) {
  FoldProblem problem = Problem(site);
  if (PlanSolve(plan_.recipe, problem.scheme).search_scales) {
    blocks_[static_cast<size_t>(site)] =
        GramBlocks(backend_, exec_, StatisticsOf(site).gram, problem.scheme);
  }
  SetImportance(site, problem);
  if (plan_.recipe.transform == Transform::kAwq) return SearchAwq(problem, site);
  ReportOutliers(site, problem);
  return Smooth(problem);
}

// Empty: identity. All candidates are ranked on the smallest grid; the best ones and identity are
// then scored on the grid that the solver will use.
std::vector<float> FoldSearch::SearchAwq(const FoldProblem& problem, Site site) {
  RoundingScore score(backend_, exec_, problem, StatisticsOf(site).gram);
  const std::vector<float> ones(static_cast<size_t>(problem.scales), 1.0f);
  using Ranked = std::pair<double, std::vector<float>>;
  std::vector<Ranked> ranked;
  for (std::vector<float>& candidate : AwqCandidates(problem)) {
    const double error = score.OnSmallestGrid(candidate);
    ranked.emplace_back(error, std::move(candidate));
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Ranked& a, const Ranked& b) { return a.first < b.first; });
  if (std::ssize(ranked) > kFinalists) ranked.resize(static_cast<size_t>(kFinalists));
  if (HasExpectedError(problem.scheme)) {
    ranked.emplace_back(0,
                        ExpectedError(problem).Balance(ranked.empty() ? ones : ranked[0].second));
  }
  const ConstMatrix blocks = BlocksOf(site);
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

std::vector<float> FoldSearch::Smooth(const FoldProblem& problem) const {
  if (plan_.recipe.smoothing_alpha) return SmoothingScales(problem, *plan_.recipe.smoothing_alpha);
  // Numbers of few bits have errors in proportion to themselves: scales change nothing there.
  if (!HasExpectedError(problem.scheme)) return {};
  const std::vector<float> ones(static_cast<size_t>(problem.scales), 1.0f);
  std::vector<float> best;
  ExpectedError expected(problem);
  double least = expected.At(ones).total() * (1 - kLeastGain);
  const auto consider = [&](std::vector<float> candidate) {
    const double error = expected.At(candidate).total();
    if (!(error < least)) return;
    least = error;
    best = std::move(candidate);
  };
  for (std::vector<float>& candidate : SmoothingCandidates(problem)) consider(std::move(candidate));
  consider(expected.Balance(best.empty() ? ones : best));
  return best;
}

void FoldSearch::ReportOutliers(Site site, const FoldProblem& problem) {
  const OutlierChannels outliers = FindOutliers(problem.absmax);
  if (outliers.count == 0) return;
  events_.push_back(
      {"outlier_channels", PlaceOf(site),
       fmt::format("{} of {} input channels reach more than {:.0f} times the median channel's "
                   "largest magnitude; channel {} reaches {:.0f} times",
                   outliers.count, problem.absmax.size(), kOutlierRatio, outliers.largest,
                   outliers.ratio),
       false});
}

Grid FoldSearch::ChooseGrid(const BlockSource& folded, const LinearSpec& linear, ConstMatrix weight,
                            Site site) {
  const QuantScheme& scheme = plan_.Find(linear.name)->scheme;
  if (BlocksOf(site).empty()) return MinMax(backend_, exec_, weight, scheme);
  const std::vector<float>& columns = folded.ColumnScales(linear);
  if (columns.empty()) return SearchScales(backend_, exec_, weight, BlocksOf(site), scheme);
  return SearchScales(backend_, exec_, weight,
                      ScaledBlocks(backend_, exec_, BlocksOf(site), columns), scheme);
}

std::unique_ptr<PackedLinear> FoldSearch::Rounded(const BlockSource& folded,
                                                  const LinearSpec& linear, Site site) {
  const QuantizedModule* module = plan_.Find(linear.name);
  const Tensor host = folded.Weight(linear);
  if (module == nullptr) return backend_.PackDense(exec_, host, plan_.stream.compute);
  const Tensor weight = backend_.Empty(DType::kF32, linear.out, linear.in);
  backend_.Upload(exec_, host, weight);
  QuantizedLinear rounded =
      SolveRtn(backend_, exec_, weight, module->scheme, ChooseGrid(folded, linear, weight, site))
          .linear;
  const InputScheme& input = module->scheme.input;
  if (input.type != InputScheme::Type::kNone && !input.dynamic) {
    const ProbedInputs& statistics = StatisticsOf(site);
    SetStaticInput(RangeOfInputs(statistics.lo, statistics.hi, folded.ColumnScales(linear)),
                   rounded);
  }
  return backend_.PackQuantized(exec_, rounded, plan_.stream.compute);
}

// Site by site: what does not bring the rounded block's output closer to the dense one's is undone.
BlockFolding FoldSearch::Confirm(const BlockFolding& found, OutputProbe& output) {
  BlockFolding kept;
  if (found.identity()) return kept;
  BlockWeights weights = LoadBlockExceptWeights(backend_, exec_, BlockSource(source_, block_));
  const std::vector<const LinearSpec*> linears = block_.Linears();
  const auto round = [&](const BlockSource& folded, const std::vector<const LinearSpec*>& which,
                         BlockWeights& to) {
    for (const Site site : kSites) {
      for (const LinearSpec* linear : block_.LinearsAt(site)) {
        if (std::find(which.begin(), which.end(), linear) == which.end()) continue;
        to.linears[BlockWeights::IndexOf(block_, *linear)].weight = Rounded(folded, *linear, site);
      }
    }
  };
  round(BlockSource(source_, block_), linears, weights);
  double least = output.Error(weights);
  for (const Site site : kSites) {
    if (found.at(site).empty()) continue;
    BlockFolding tried = kept;
    tried.at(site) = found.at(site);
    const BlockSource folded(source_, block_, tried);
    std::vector<const LinearSpec*> changed = block_.LinearsAt(site);
    if (const LinearSpec* producer = ProducerOf(block_, site)) changed.push_back(producer);
    BlockWeights trial = LoadBlockExceptWeights(backend_, exec_, folded);
    round(folded, changed, trial);
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
    events_.push_back({"folding_kept_identity", PlaceOf(site),
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

}  // namespace

int64_t FoldingBytes(const DecoderSpec& spec, const QuantizePlan& plan) {
  if (plan.recipe.transform == Transform::kNone) return 0;
  int64_t weights = 0;
  for (const LinearSpec* linear : spec.blocks.front().Linears())
    weights += linear->out * linear->in;
  int64_t grams = 0;
  int64_t largest = 0;
  int64_t inputs = 0;
  for (const Site site : kSites) {
    const int64_t in = spec.blocks.front().LinearsAt(site).front()->in;
    grams += in * in;
    largest = std::max(largest, in * in);
    inputs += in;
  }
  const auto f32 = static_cast<int64_t>(sizeof(float));
  // The dense block; all Gram matrices and the square that scores; what the searches see of the
  // weights, and the magnitudes of the descent beside it; outputs.
  return weights * f32 + (grams + 2 * largest) * f32 + 3 * kMostWeights * f32 +
         kSampleTokens * inputs * f32 + 2 * kConfirmTokens * spec.hidden * f32;
}

BlockFolding ChooseFolding(Backend& backend, Exec& exec, const ModelSource& source,
                           const BlockSpec& block, CalibrationStream& stream,
                           const QuantizePlan& plan, std::vector<Event>& events) {
  if (plan.recipe.transform == Transform::kNone) return {};
  return FoldSearch(backend, exec, source, block, stream, plan, events).Run();
}

}  // namespace quantmill
