#include "quant/pipeline/sensitivity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "kernels/core/error.h"
#include "quant/calib/site_statistics.h"
#include "quant/calib/token_stream.h"
#include "quant/pipeline/probe_streams.h"
#include "quant/pipeline/schemes.h"
#include "quant/pipeline/site_solver.h"

namespace quantmill {
namespace {

// Enough for relative errors of layers, which need no full rank.
constexpr int64_t kGramWindows = 32;
// All probes see the same tokens, so that few of them rank the groups.
constexpr int64_t kProbeWindows = 1;
constexpr int64_t kHeldOutWindows = 16;
// Each has a stream for each site: the memory of 128 streams is what a large model can spare.
constexpr size_t kMostDepths = 32;
// The divergence of this many bits is well above noise, and still near what a budget chooses.
constexpr int kProbeBits = 3;

// The text's last windows are for divergences, what is before them for statistics.
struct SplitWindows {
  TokenWindows statistics;
  TokenWindows probes;
};

// `probes` windows are held out, or as many as the recipe's samples leave.
SplitWindows ReadWindows(const ModelSource& source, const CalibrationRecipe& recipe,
                         int64_t probes) {
  std::vector<int32_t> ids = ReadCalibrationIds(recipe.text, source);
  const int64_t length = recipe.sequence_length;
  const int64_t total = std::ssize(ids) / length;
  const int64_t left = total - recipe.samples;
  if (left < 1) {
    throw Error(ErrorCode::kBadInput, recipe.text.empty() ? "--calib" : recipe.text,
                fmt::format("a budget is checked on windows that are not calibrated on; the text "
                            "has {} of {} tokens and {} are calibrated on: {}",
                            total, length, recipe.samples,
                            total > 1 ? fmt::format("--samples {} would do", total - 1)
                                      : "give a longer text, or a smaller --sequence-length"));
  }
  SplitWindows windows;
  windows.probes = TakeLastWindows(ids, std::min(probes, left), length);
  windows.statistics =
      CutCalibrationWindows(ids, std::min(recipe.samples, kGramWindows), length, recipe.seed);
  return windows;
}

size_t FamilyOf(size_t depth, Site site) {
  return depth * kSites.size() + static_cast<size_t>(site);
}

// Where the first of them reads: experts of a mixture are one group over two sites.
Site SiteOf(const BlockSpec& block, const std::vector<const LinearSpec*>& linears) {
  for (const Site site : kSites) {
    const std::vector<const LinearSpec*> all = block.LinearsAt(site);
    if (std::ranges::find(all, linears.front()) != all.end()) return site;
  }
  Check(false, "SiteOf: the linear is not of this block");
  return Site::kMlpIn;
}

// "model.layers.0.mlp." + "(gate_proj|up_proj)", dots escaped: names its layers as a pattern; of
// experts: "model.layers.0.mlp.experts.[0-9]+." + "(gate_proj|up_proj|down_proj)".
std::string GroupName(const std::vector<const LinearSpec*>& linears) {
  const std::string& first = linears.front()->name;
  std::string prefix = first.substr(0, first.rfind('.') + 1);
  std::vector<std::string> leaves;
  for (const LinearSpec* linear : linears) {
    std::string leaf = linear->name.substr(linear->name.rfind('.') + 1);
    if (std::ranges::find(leaves, leaf) == leaves.end()) leaves.push_back(std::move(leaf));
  }
  if (linears.size() > leaves.size()) {
    prefix = first.substr(0, prefix.rfind('.', prefix.size() - 2) + 1) + "[0-9]+.";
  }
  if (leaves.size() == 1) return prefix + leaves.front();
  return prefix + fmt::format("({})", fmt::join(leaves, "|"));
}

int64_t BitsOf(const LinearSpec& linear, const QuantScheme& scheme) {
  return std::llround(scheme.BitsPerWeight(linear.out, linear.in) *
                      static_cast<double>(linear.out * linear.in));
}

bool IsFree(RuleMatcher& rules, const std::vector<const LinearSpec*>& linears) {
  return std::all_of(linears.begin(), linears.end(), [&](const LinearSpec* linear) {
    return rules.Match(linear->name) == nullptr;
  });
}

// With its bits counted; no error was measured.
LayerGroup NewGroup(const std::vector<const LinearSpec*>& linears,
                    const std::vector<QuantScheme>& candidates) {
  LayerGroup group;
  group.name = GroupName(linears);
  group.bits.resize(candidates.size(), 0);
  group.errors.resize(candidates.size(), 0);
  for (const LinearSpec* linear : linears) {
    group.layers.push_back(linear->name);
    group.weights += linear->out * linear->in;
    for (size_t i = 0; i < candidates.size(); ++i) group.bits[i] += BitsOf(*linear, candidates[i]);
  }
  return group;
}

void AddFixed(const std::vector<const LinearSpec*>& linears, const QuantizePlan& plan,
              Sensitivity& result) {
  for (const LinearSpec* linear : linears) {
    const QuantizedModule* module = plan.Find(linear->name);
    if (module == nullptr) continue;  // dense: outside the average
    result.fixed_weights += linear->out * linear->in;
    result.fixed_bits += BitsOf(*linear, module->scheme);
  }
}

class Measurement {
 public:
  Measurement(Backend& backend, Exec& exec, const ModelSource& source, const QuantizePlan& plan,
              const SplitWindows& windows, const SensitivityProgress& progress)
      : backend_(backend),
        exec_(exec),
        source_(source),
        plan_(plan),
        progress_(progress),
        rules_(plan.recipe.rules),
        statistics_(backend, exec, source, windows.statistics, plan.stream),
        probes_(backend, exec, source, windows.probes, plan.stream.compute),
        depths_(ProbeDepths(source.spec(), windows.probes.tokens(), plan.backend_budget)) {
    result_.candidates = CandidatesFor(plan.recipe.scheme, plan.recipe.target.stack);
    probe_ = static_cast<size_t>(
        std::find_if(result_.candidates.begin(), result_.candidates.end(),
                     [](const QuantScheme& scheme) { return scheme.bits >= kProbeBits; }) -
        result_.candidates.begin());
  }

  Sensitivity Run() {
    const std::vector<BlockSpec>& blocks = source_.spec().blocks;
    for (size_t i = 0; i < blocks.size(); ++i) MeasureBlock(i, blocks[i]);
    if (result_.groups.empty()) {
      throw Error(ErrorCode::kUsage, "--budget", "the rules name every layer: nothing to choose");
    }
    FitFamilies();
    return std::move(result_);
  }

 private:
  // One block on its way. Groups are the sets of layers that servers fuse.
  struct BlockInWork {
    const BlockSpec& spec;
    BlockWeights weights;
    std::vector<LayerGroup> groups;
    std::map<const LinearSpec*, size_t> group_of;        // of layers that are free
    std::vector<std::unique_ptr<PackedLinear>> rounded;  // those; null elsewhere
  };

  void MeasureBlock(size_t index, const BlockSpec& spec) {
    BlockInWork block{
        spec, LoadBlock(backend_, exec_, source_, spec, plan_.stream.compute), {}, {}, {}};
    block.rounded.resize(block.weights.linears.size());
    const size_t blocks = source_.spec().blocks.size();
    const size_t depth = index * depths_ / blocks;
    for (const auto& linears : spec.FusedLinears()) AddGroup(linears, depth, block);
    for (const Site site : kSites) {
      const auto step = static_cast<int64_t>(index * kSites.size() + static_cast<size_t>(site));
      progress_(step, static_cast<int64_t>(blocks * kSites.size()),
                spec.prefix + ": " + NameOf(site));
      for (const SharedInput& input : spec.SharedInputs()) {
        if (input.site == site) MeasureInput(input, block);
      }
      statistics_.Advance(spec, block.weights, site);
    }
    RunProbes(depth, block);
    for (LayerGroup& group : block.groups) {
      for (double& error : group.errors) error /= static_cast<double>(group.layers.size());
      result_.groups.push_back(std::move(group));
    }
  }

  void AddGroup(const std::vector<const LinearSpec*>& linears, size_t depth, BlockInWork& block) {
    if (!IsFree(rules_, linears)) return AddFixed(linears, plan_, result_);
    LayerGroup group = NewGroup(linears, result_.candidates);
    group.family = FamilyOf(depth, SiteOf(block.spec, linears));
    for (const LinearSpec* linear : linears) block.group_of[linear] = block.groups.size();
    block.groups.push_back(std::move(group));
  }

  // The stream of a family is the dense one up to its first block.
  void RunProbes(size_t depth, BlockInWork& block) {
    while (probes_.count() <= FamilyOf(depth, kSites.back()) + 1) probes_.Fork();
    probes_.Run(0, block.spec, block.weights);
    for (size_t family = 0; family + 1 < probes_.count(); ++family) {
      SwapFamily(family, block);
      probes_.Run(1 + family, block.spec, block.weights);
      SwapFamily(family, block);
    }
  }

  // Between dense and rounded layers; nothing where the family is of other blocks.
  static void SwapFamily(size_t family, BlockInWork& block) {
    for (const auto& [linear, group] : block.group_of) {
      if (block.groups[group].family != family) continue;
      const size_t at = BlockWeights::IndexOf(block.spec, *linear);
      std::swap(block.weights.linears[at].weight, block.rounded[at]);
    }
  }

  void MeasureInput(const SharedInput& input, BlockInWork& block) {
    std::vector<const LinearSpec*> linears = block.spec.LinearsAt(input);
    std::erase_if(linears, [&](const LinearSpec* l) { return !block.group_of.contains(l); });
    if (linears.empty()) return;
    SiteStatistics sums =
        GatherStatistics(backend_, exec_, statistics_, nullptr, block.spec, block.weights, nullptr,
                         input, false, [](const std::function<void()>& work) { work(); });
    exec_.workspace.Trim();
    SiteSolver solver =
        MakeSolver(linears, std::move(sums), block.spec.prefix + ": " + NameOf(input));
    for (const LinearSpec* linear : linears) {
      block.rounded[BlockWeights::IndexOf(block.spec, *linear)] =
          MeasureLayer(*linear, solver, block.groups[block.group_of.at(linear)]);
    }
  }

  // The recipe's own, for every candidate: what a solver makes of a layer is not what rounding
  // does.
  SiteSolver MakeSolver(const std::vector<const LinearSpec*>& linears, SiteStatistics statistics,
                        const std::string& where) {
    std::vector<QuantizedModule> modules;
    modules.reserve(result_.candidates.size());
    for (const QuantScheme& scheme : result_.candidates) {
      modules.push_back({where, scheme, linears.front()->out, linears.front()->in});
    }
    std::vector<const QuantizedModule*> wanted;
    wanted.reserve(modules.size());
    for (const QuantizedModule& module : modules) wanted.push_back(&module);
    return {backend_, exec_, plan_.recipe, std::move(statistics), wanted, where, std::nullopt};
  }

  // Adds its errors to the group; the layer as the probe sees it.
  std::unique_ptr<PackedLinear> MeasureLayer(const LinearSpec& linear, SiteSolver& solver,
                                             LayerGroup& group) {
    const Tensor weight = backend_.Empty(DType::kF32, linear.out, linear.in);
    const DenseMatrix dense = source_.DenseWeight(linear);
    backend_.Upload(exec_, dense, weight);
    exec_.stream.Synchronize();
    std::unique_ptr<PackedLinear> probe;
    for (size_t i = 0; i < result_.candidates.size(); ++i) {
      const QuantScheme& scheme = result_.candidates[i];
      const SolveResult solved = solver.Solve(weight, scheme).solved;
      group.errors[i] += solved.relative_error;
      if (i == probe_) probe = backend_.PackQuantized(exec_, solved.linear, plan_.stream.compute);
    }
    source_.Release(linear);
    return probe;
  }

  void FitFamilies() {
    const std::vector<double> divergences = probes_.Divergences(source_);
    result_.family_scales.resize(divergences.size() - 1, 0);
    for (size_t family = 0; family < result_.family_scales.size(); ++family) {
      double error = 0;
      for (const LayerGroup& group : result_.groups) {
        if (group.family == family) error += group.errors[probe_];
      }
      // A family that a probe did not harm still costs something: more bits are never worse.
      const double divergence = std::max(divergences[1 + family], 1e-9);
      result_.family_scales[family] = error > 0 ? divergence / error : 0;
    }
  }

  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  const QuantizePlan& plan_;
  const SensitivityProgress& progress_;
  RuleMatcher rules_;
  CalibrationStream statistics_;
  ProbeStreams probes_;  // the dense model, then one stream for each family so far
  size_t depths_;
  size_t probe_ = 0;  // index of the candidate that probes use
  Sensitivity result_;
};

}  // namespace

int64_t Sensitivity::total_weights() const {
  int64_t total = fixed_weights;
  for (const LayerGroup& group : groups) total += group.weights;
  return total;
}

TokenWindows HeldOutWindows(const ModelSource& source, const CalibrationRecipe& recipe) {
  return ReadWindows(source, recipe, kHeldOutWindows).probes;
}

size_t ProbeDepths(const DecoderSpec& spec, int64_t tokens, int64_t budget) {
  const size_t depths = std::min(spec.blocks.size(), kMostDepths);
  if (budget == 0) return depths;
  const int64_t depth_bytes =
      std::ssize(kSites) * tokens * spec.hidden * static_cast<int64_t>(sizeof(float));
  const auto fitting = static_cast<size_t>(budget / 4 / depth_bytes);
  return std::clamp<size_t>(fitting, 1, depths);
}

bool HasCandidates(const QuantScheme& base) {
  return base.code_type == CodeType::kInt && base.input.type == InputScheme::Type::kNone;
}

std::vector<QuantScheme> CandidatesFor(const QuantScheme& base, ServingTarget::Stack stack) {
  const bool any = stack != ServingTarget::Stack::kVllm && stack != ServingTarget::Stack::kSglang;
  std::vector<QuantScheme> candidates;
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    if (!any && bits != 4 && bits != 8) continue;
    candidates.push_back(base);
    candidates.back().bits = bits;
  }
  return candidates;
}

Sensitivity CountBits(const ModelSource& source, const QuantizePlan& plan) {
  RuleMatcher rules(plan.recipe.rules);
  Sensitivity counted;
  counted.candidates = CandidatesFor(plan.recipe.scheme, plan.recipe.target.stack);
  counted.family_scales = {0};
  for (const BlockSpec& block : source.spec().blocks) {
    for (const auto& linears : block.FusedLinears()) {
      if (IsFree(rules, linears)) {
        counted.groups.push_back(NewGroup(linears, counted.candidates));
      } else {
        AddFixed(linears, plan, counted);
      }
    }
  }
  return counted;
}

Sensitivity MeasureSensitivity(Backend& backend, Exec& exec, const ModelSource& source,
                               const QuantizePlan& plan, const SensitivityProgress& progress) {
  const QuantScheme& base = plan.recipe.scheme;
  if (!HasCandidates(base)) {
    throw Error(ErrorCode::kUsage, "--budget",
                fmt::format("chooses bits of weight-only integers; {} has one size only",
                            SchemeText(base)));
  }
  const SplitWindows windows = ReadWindows(source, plan.recipe.calibration, kProbeWindows);
  return Measurement(backend, exec, source, plan, windows, progress).Run();
}

}  // namespace quantmill
