// The text of `quantmill plan`.
#include <fmt/format.h>

#include <utility>

#include "quant/report/layout.h"
#include "quant/report/text.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

std::string LayersText(const PlanReport& r) {
  Table table({"layers", "scheme", "count", "weights", "size"});
  for (const PlannedLayers& line : r.layers) {
    const bool dense = line.weights == 0;
    table.Add({Printable(line.layers), line.scheme, std::to_string(line.count),
               dense ? "-" : FormatParameters(line.weights),
               dense ? "-" : FormatBytes(line.bytes)});
  }
  return table.Render(0);
}

std::string SensitivityText(const SensitivityTable& s) {
  std::vector<std::string> header = {"KL that each would add"};
  for (const std::string& candidate : s.candidates) {
    header.push_back(candidate.substr(0, candidate.find('a')));
  }
  Table table(std::move(header));
  for (const SensitivityTable::Group& group : s.groups) {
    std::vector<std::string> cells = {Printable(group.layers)};
    for (const double kl : group.predicted_kl) cells.push_back(FormatNumber(kl, 2));
    table.Add(std::move(cells));
  }
  return "\n" + table.Render(0);
}

}  // namespace

std::string ToText(const PlanReport& r, const TextStyle& style) {
  std::string text = fmt::format(
      "plan for {}\n  method      {}\n  format      {}\n  average     {} bits a weight, scales and "
      "zero points counted\n  weights     {} -> about {}\n",
      Printable(r.model), r.method, r.format, FormatFixed(r.average_bits, 3),
      FormatBytes(r.input_bytes), FormatBytes(r.output_bytes));
  text += r.calibration_tokens > 0
              ? fmt::format("  calibration {} tokens\n", FormatCount(r.calibration_tokens))
              : "  calibration none needed\n";
  text += "\n" + LayersText(r) + "\n" + ToText(r.memory, style);
  for (const Event& event : r.events) {
    text += "\n" + Wrap("- ", fmt::format("{}: {}", Printable(event.where), event.what));
  }
  if (r.sensitivity) text += SensitivityText(*r.sensitivity);
  return text;
}

}  // namespace quantmill
