#include "quant/pipeline/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

// "model.layers.12.mlp.up_proj" -> "model.layers.*.mlp.up_proj": one line for all blocks.
std::string Collapsed(const std::string& name) {
  std::string text;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool number = name[i] >= '0' && name[i] <= '9' && i > 0 && name[i - 1] == '.';
    const size_t end = number ? std::min(name.find_first_not_of("0123456789", i), name.size()) : i;
    if (number && (end == name.size() || name[end] == '.')) {
      text += '*';
      i = end - 1;
    } else {
      text += name[i];
    }
  }
  return text;
}

void AddLayer(std::vector<PlannedLayers>& lines, const PlannedLayers& layer) {
  const auto same = std::find_if(lines.begin(), lines.end(), [&](const PlannedLayers& line) {
    return line.layers == layer.layers && line.scheme == layer.scheme;
  });
  if (same == lines.end()) {
    lines.push_back(layer);
    return;
  }
  same->count += layer.count;
  same->weights += layer.weights;
  same->bytes += layer.bytes;
}

int64_t PackedBytes(const QuantizedModule& module) {
  const double bits = module.scheme.BitsPerWeight(module.out, module.in) *
                      static_cast<double>(module.out * module.in);
  return std::llround(bits / 8);
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
  if (auto event = UntiedHead(source, plan.recipe)) {
    report.output_bytes += HeadBytes(source);
    report.events.push_back(std::move(*event));
  }
  int64_t weights = 0;
  int64_t bytes = 0;
  for (const QuantizedModule& module : plan.modules.all()) {
    const int64_t elements = module.out * module.in;
    const int64_t packed = PackedBytes(module);
    AddLayer(report.layers,
             {Collapsed(module.name), SchemeText(module.scheme), 1, elements, packed});
    weights += elements;
    bytes += packed;
    report.output_bytes += packed - elements * SizeOf(source.dense_dtype());
  }
  for (const std::string& name : plan.dense) {
    AddLayer(report.layers, {Collapsed(name), "dense", 1, 0, 0});
  }
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

std::optional<Event> UntiedHead(const ModelSource& source, const Recipe& recipe) {
  const DecoderSpec& spec = source.original().spec();
  if (!recipe.rotate || !spec.tied) return std::nullopt;
  return Event{"untied_head", spec.lm_head.name,
               fmt::format("was one tensor with the embedding; rotated, it is another: {:.1f} MB "
                           "more (--quantize-head halves it)",
                           static_cast<double>(HeadBytes(source)) / 1e6),
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
