#include "quant/pipeline/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

// A module name around the number of its block: "model.layers.", 12, ".mlp.up_proj".
struct NameParts {
  std::string before;
  int64_t block = -1;  // none: all of the name is `before`
  std::string after;

  std::string With(const std::string& number) const { return before + number + after; }
};

NameParts PartsOf(const std::string& name) {
  const auto digit = [&](size_t i) { return name[i] >= '0' && name[i] <= '9'; };
  for (size_t at = 1; at < name.size(); ++at) {
    if (name[at - 1] != '.' || !digit(at)) continue;
    size_t end = at;
    while (end < name.size() && digit(end)) ++end;
    if (end < name.size() && name[end] != '.') continue;
    return {name.substr(0, at), std::stoll(name.substr(at, end - at)), name.substr(end)};
  }
  return {name, -1, ""};
}

// "model.layers.0.mlp.experts.7.up_proj" -> "model.layers.0.mlp.experts.*.up_proj": experts of a
// block differ in nothing.
std::string AllExperts(const std::string& name) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = name.find(kExperts);
  if (at == std::string::npos) return name;
  const size_t number = at + kExperts.size();
  return name.substr(0, number) + "*" + name.substr(std::min(name.find('.', number), name.size()));
}

// {0, 1, 2, 5} -> "{0-2,5}"; {3} -> "3"
std::string Ranges(const std::vector<int64_t>& numbers) {
  if (numbers.size() == 1) return std::to_string(numbers.front());
  std::string text;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", numbers[begin]);
    if (end - begin > 1) text += fmt::format("-{}", numbers[end - 1]);
    begin = end;
  }
  return "{" + text + "}";
}

// Layers that differ in nothing but the number of their block share a line: "model.layers.*.mlp.up"
// where no other line has such names, "model.layers.{0-2,5}.mlp.up" otherwise.
class LayerLines {
 public:
  void Add(const std::string& name, const std::string& scheme, int64_t weights, int64_t bytes) {
    const NameParts parts = PartsOf(AllExperts(name));
    const std::string key = parts.With("*");
    auto line = std::find_if(lines_.begin(), lines_.end(), [&](const Line& known) {
      return known.planned.layers == key && known.planned.scheme == scheme;
    });
    if (line == lines_.end()) {
      ++lines_of_[key];
      Line added;
      added.planned.layers = key;
      added.planned.scheme = scheme;
      added.parts = parts;
      lines_.push_back(std::move(added));
      line = std::prev(lines_.end());
    }
    ++line->planned.count;
    line->planned.weights += weights;
    line->planned.bytes += bytes;
    line->blocks.push_back(parts.block);
  }

  std::vector<PlannedLayers> Take() {
    std::vector<PlannedLayers> taken;
    for (Line& line : lines_) {
      if (line.parts.block < 0) {
        line.planned.layers = line.parts.before;
      } else if (lines_of_[line.planned.layers] > 1) {
        line.planned.layers = line.parts.With(Ranges(line.blocks));
      }
      taken.push_back(std::move(line.planned));
    }
    return taken;
  }

 private:
  struct Line {
    PlannedLayers planned;
    NameParts parts;
    std::vector<int64_t> blocks;
  };
  std::vector<Line> lines_;
  std::map<std::string, int> lines_of_;  // by name with '*'
};

int64_t PackedBytes(const QuantizePlan& plan, const QuantizedModule& module) {
  if (const std::optional<GgmlType> blocks = plan.BlocksOf(module.name)) {
    return module.out * static_cast<int64_t>(RowBytes(*blocks, module.in).value());
  }
  const double bits = module.scheme.BitsPerWeight(module.out, module.in) *
                      static_cast<double>(module.out * module.in);
  return std::llround(bits / 8);
}

int64_t GgufBytes(const GgufPlan& gguf) {
  int64_t bytes = 0;
  for (size_t i = 0; i < gguf.layout.matrices.size(); ++i) {
    const LinearSpec& linear = gguf.layout.matrices[i].linear;
    bytes += linear.out * static_cast<int64_t>(RowBytes(gguf.types.types[i], linear.in).value());
  }
  return bytes;
}

int64_t HeadBytes(const ModelSource& source) {
  const LinearSpec& head = source.spec().lm_head;
  return head.out * head.in * SizeOf(source.dense_dtype());
}

}  // namespace

PlanReport DescribePlan(const ModelSource& source, const QuantizePlan& plan) {
  PlanReport report;
  report.model = source.path();
  report.method = NameOf(plan.recipe.method_choice());
  report.format = plan.recipe.format;
  report.memory = plan.memory;
  report.input_bytes = static_cast<int64_t>(source.checkpoint().total_bytes());
  report.output_bytes = report.input_bytes;
  if (auto event = DroppedHead(source)) report.events.push_back(std::move(*event));
  if (auto event = UntiedHead(source, plan.recipe)) {
    report.output_bytes += HeadBytes(source);
    report.events.push_back(std::move(*event));
  }
  for (Event& note : TargetNotes(source, plan)) report.events.push_back(std::move(note));
  for (Event& event : BlockFallbacks(plan)) report.events.push_back(std::move(event));
  LayerLines lines;
  int64_t weights = 0;
  int64_t bytes = 0;
  for (const QuantizedModule& module : plan.modules.all()) {
    const int64_t elements = module.out * module.in;
    const int64_t packed = PackedBytes(plan, module);
    const std::optional<GgmlType> blocks = plan.BlocksOf(module.name);
    lines.Add(module.name, blocks ? std::string(NameOf(*blocks)) : SchemeText(module.scheme),
              elements, packed);
    weights += elements;
    bytes += packed;
    report.output_bytes += packed - elements * SizeOf(source.dense_dtype());
  }
  for (const std::string& name : plan.dense) {
    lines.Add(name, "dense", 0, 0);
  }
  if (plan.gguf) report.output_bytes = GgufBytes(*plan.gguf);
  report.layers = lines.Take();
  report.average_bits = static_cast<double>(bytes) * 8 / static_cast<double>(weights);
  if (plan.recipe.calibrated()) {
    report.calibration_tokens =
        plan.recipe.calibration.samples * plan.recipe.calibration.sequence_length;
  }
  if (auto event = ShortCalibration(plan)) report.events.push_back(std::move(*event));
  return report;
}

SensitivityTable DescribeSensitivity(const Sensitivity& sensitivity) {
  SensitivityTable table;
  for (const QuantScheme& scheme : sensitivity.candidates) {
    table.candidates.push_back(SchemeText(scheme));
  }
  for (const LayerGroup& group : sensitivity.groups) {
    SensitivityTable::Group& line = table.groups.emplace_back();
    line.layers = group.name;
    line.weights = group.weights;
    for (size_t i = 0; i < table.candidates.size(); ++i) {
      line.predicted_kl.push_back(sensitivity.Cost(group, i));
    }
  }
  return table;
}

std::optional<Event> DroppedHead(const ModelSource& source) {
  const Checkpoint& checkpoint = source.original().checkpoint();
  const DecoderSpec& spec = source.original().spec();
  const std::string head = spec.lm_head.name + ".weight";
  if (!spec.tied || checkpoint.is_image() || !checkpoint.Has(head)) return std::nullopt;
  const bool same_type = checkpoint.Info(head).dtype == checkpoint.Info(spec.embedding).dtype;
  if (same_type && std::ranges::equal(checkpoint.Bytes(head), checkpoint.Bytes(spec.embedding))) {
    return std::nullopt;
  }
  return Event{"dropped_head", head,
               "differs from the embedding, to which config.json ties it: readers take the "
               "embedding, so this tensor is left out",
               false};
}

std::optional<Event> UntiedHead(const ModelSource& source, const Recipe& recipe) {
  const DecoderSpec& spec = source.original().spec();
  if (!recipe.rotate || !spec.tied) return std::nullopt;
  return Event{"untied_head", spec.lm_head.name,
               fmt::format("was one tensor with the embedding; rotated, it is another: {:.1f} MB "
                           "more (--quantize-head halves it)",
                           static_cast<double>(HeadBytes(source)) / 1e6),
               false};
}

std::vector<Event> BlockFallbacks(const QuantizePlan& plan) {
  std::vector<Event> events;
  if (!plan.gguf) return events;
  std::map<std::string, std::pair<std::string, int64_t>> layers;  // what -> first layer, how many
  for (const GgufFallback& fallback : plan.gguf->types.fallbacks) {
    const GgufMatrix& matrix = plan.gguf->layout.matrices[fallback.matrix];
    if (plan.gguf->types.types[fallback.matrix] != fallback.got) continue;  // kept dense
    const auto what = fmt::format(
        "rows of {} do not fill blocks of {} ({}): {} instead, as llama-quantize has it",
        matrix.linear.in, InfoOf(fallback.wanted).block_elements, InfoOf(fallback.wanted).name,
        InfoOf(fallback.got).name);
    ++layers.try_emplace(what, matrix.linear.name, 0).first->second.second;
  }
  for (const auto& [what, found] : layers) {
    const auto& [first, count] = found;
    events.push_back({"block_fallback", first,
                      count == 1 ? what : fmt::format("{} ({} layers)", what, count), false});
  }
  return events;
}

std::vector<Event> TargetNotes(const ModelSource& source, const QuantizePlan& plan) {
  const Recipe& recipe = plan.recipe;
  TargetVerdict verdict = CheckServingTarget(recipe.target, source.spec(), recipe.format,
                                             plan.modules.all(), recipe.kv);
  std::vector<Event> events;
  for (TargetFinding& note : verdict.notes) {
    std::string where = note.where.empty() ? "--target" : std::move(note.where);
    events.push_back({"serving_target", std::move(where), std::move(note.what), false});
  }
  return events;
}

std::optional<Event> UnreachedExperts(const MixtureCoverage& coverage) {
  std::vector<int64_t> unreached;
  for (int64_t e = 0; e < std::ssize(coverage.tokens); ++e) {
    if (coverage.tokens[static_cast<size_t>(e)] == 0) unreached.push_back(e);
  }
  if (unreached.empty()) return std::nullopt;
  return Event{
      "unreached_experts", coverage.block,
      fmt::format("the router sends no calibration token to {} of {} experts ({}). They are "
                  "calibrated like the others, on what they compute for every token, but on none "
                  "that is meant for them; --calib TEXT with more of what they are for may help",
                  unreached.size(), coverage.tokens.size(), Ranges(unreached)),
      false};
}

std::optional<Event> ShortCalibration(const QuantizePlan& plan) {
  if (!plan.recipe.calibrated()) return std::nullopt;
  const CalibrationRecipe& calibration = plan.recipe.calibration;
  const int64_t tokens = calibration.samples * calibration.sequence_length;
  const QuantizedModule* widest = &plan.modules.all().front();
  for (const QuantizedModule& module : plan.modules.all()) {
    if (module.in > widest->in) widest = &module;
  }
  if (tokens >= widest->in) return std::nullopt;
  return Event{
      "short_calibration", widest->name,
      fmt::format("{} calibration tokens for {} inputs: their statistics are incomplete; "
                  "--samples {} would do",
                  tokens, widest->in,
                  (widest->in + calibration.sequence_length - 1) / calibration.sequence_length),
      false};
}

}  // namespace quantmill
