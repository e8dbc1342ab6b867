// The text of `quantmill plan`.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

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

// What all names begin with, up to a dot.
size_t CommonPrefix(const std::vector<SensitivityTable::Group>& groups) {
  const std::string& first = groups.front().layers;
  size_t length = first.size();
  for (const SensitivityTable::Group& group : groups) {
    const auto differs =
        std::mismatch(first.begin(), first.end(), group.layers.begin(), group.layers.end());
    length = std::min(length, static_cast<size_t>(differs.first - first.begin()));
  }
  return length == 0 ? 0 : first.rfind('.', length - 1) + 1;
}

// "0.self_attn.(q_proj|k_proj|v_proj)" -> "0.self_attn.q|k|v_proj": the table has no room for more.
std::string ShortName(std::string name) {
  const size_t open = name.find('(');
  if (open == std::string::npos || name.back() != ')') return name;
  const size_t suffix = name.find_last_of("_|(");
  const std::string end = name[suffix] == '_' ? name.substr(suffix, name.size() - suffix - 1) : "";
  std::string alternatives = name.substr(open + 1, name.size() - open - 2);
  for (size_t at = alternatives.find(end + "|"); !end.empty() && at != std::string::npos;
       at = alternatives.find(end + "|")) {
    alternatives.erase(at, end.size());
  }
  return name.substr(0, open) + alternatives;
}

std::string SensitivityText(const SensitivityTable& s) {
  std::vector<std::string> header = {"KL that each would add"};
  for (const std::string& candidate : s.candidates) {
    header.push_back(candidate.substr(0, candidate.find('a')));
  }
  Table table(std::move(header));
  const size_t prefix = CommonPrefix(s.groups);
  for (const SensitivityTable::Group& group : s.groups) {
    std::vector<std::string> cells = {ShortName(Printable(group.layers.substr(prefix)))};
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
  if (r.predicted_kl) {
    text += fmt::format("  budget      {}: predicted KL {}\n", r.budget,
                        FormatNumber(*r.predicted_kl, 3));
  }
  text += r.calibration_tokens > 0
              ? fmt::format("  calibration {} tokens\n", FormatCount(r.calibration_tokens))
              : "  calibration none needed\n";
  if (r.seconds) text += Wrap("  time        ", "about " + FormatPhases(*r.seconds));
  text += "\n" + LayersText(r) + "\n" + ToText(r.memory, style);
  for (const Event& event : r.events) {
    text += "\n" + Wrap("- ", fmt::format("{}: {}", Printable(event.where), event.what));
  }
  if (r.sensitivity) text += SensitivityText(*r.sensitivity);
  return text;
}

}  // namespace quantmill
