#include "quant/report/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "quant/report/layout.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

constexpr size_t kWorstLayers = 5;
constexpr size_t kListedProblems = 20;

enum class Tone { kGood, kBad, kCaution };

std::string Toned(std::string_view word, Tone tone, const TextStyle& style) {
  if (!style.color) return std::string(word);
  const int code = tone == Tone::kGood ? 32 : tone == Tone::kBad ? 31 : 33;
  return fmt::format("\x1b[1;{}m{}\x1b[0m", code, word);
}

// "  memory      peak 1.23 GB": one fact a line, wrapped below its value.
std::string Fact(std::string_view name, std::string_view value) {
  return Wrap(fmt::format("  {:<12}", name), Printable(value));
}

std::string Plural(int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", FormatCount(count), noun, count == 1 ? "" : "s");
}

// What a report is about.
std::string Subject(const std::string& path) { return path.empty() ? "-" : Printable(path); }

template <typename T>
int64_t Size(const std::vector<T>& items) {
  return static_cast<int64_t>(items.size());
}

// The element in the middle (the lower one of two). `values` is not empty.
double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Values that are no number are worse than any.
bool WorseError(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && !std::isnan(b);
  return a > b;
}

// "kl<=0.05: 0.0486 measured, 4.312 bits a weight"
std::string Spent(const BudgetOutcome& budget) {
  std::string text = budget.asked + ": ";
  if (budget.measured) text += fmt::format("{:.4g} measured, ", *budget.measured);
  return text + fmt::format("{:.3f} bits a weight", budget.average_bits);
}

std::string SizeChange(uint64_t before, uint64_t after) {
  std::string text = FormatBytes(before) + " -> " + FormatBytes(after);
  if (after > 0) {
    text += fmt::format(", {:.2f} times smaller",
                        static_cast<double>(before) / static_cast<double>(after));
  }
  return text;
}

// The schemes in use, each once, with the number of layers where there are several.
std::string Schemes(const std::vector<LayerResult>& layers) {
  std::vector<std::pair<std::string, int64_t>> counts;
  for (const LayerResult& layer : layers) {
    const auto found = std::find_if(counts.begin(), counts.end(),
                                    [&](const auto& c) { return c.first == layer.scheme; });
    if (found == counts.end()) {
      counts.emplace_back(layer.scheme, 1);
    } else {
      ++found->second;
    }
  }
  if (counts.size() == 1) return counts[0].first;
  std::string text;
  for (const auto& [scheme, count] : counts) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", scheme, Plural(count, "layer"));
  }
  return text;
}

std::string WorstLayers(const std::vector<LayerResult>& layers) {
  if (layers.empty()) return "";
  std::vector<const LayerResult*> order;
  std::vector<double> finite;
  for (const LayerResult& layer : layers) {
    order.push_back(&layer);
    if (std::isfinite(layer.relative_error)) finite.push_back(layer.relative_error);
  }
  std::stable_sort(order.begin(), order.end(), [](const LayerResult* a, const LayerResult* b) {
    return WorseError(a->relative_error, b->relative_error);
  });
  order.resize(std::min(order.size(), kWorstLayers));
  Table table({"layer", "relative error", "of weights"});
  for (const LayerResult* layer : order) {
    table.Add({Printable(layer->name), FormatNumber(layer->relative_error, 3),
               FormatNumber(layer->weight_error, 3)});
  }
  const std::string median = finite.empty() ? "" : ", median " + FormatNumber(Median(finite), 3);
  return fmt::format("\nlargest errors of {}{}\n", Plural(Size(layers), "layer"), median) +
         table.Render(2);
}

// How evenly the calibration text spreads over the experts of all blocks.
std::string Coverage(const std::vector<MixtureCoverage>& mixtures) {
  std::vector<double> tokens;
  for (const MixtureCoverage& mixture : mixtures) {
    tokens.insert(tokens.end(), mixture.tokens.begin(), mixture.tokens.end());
  }
  if (tokens.empty()) return "";
  const auto [least, most] = std::minmax_element(tokens.begin(), tokens.end());
  const auto count = [](double x) { return FormatCount(static_cast<int64_t>(x)); };
  std::string text = fmt::format("{} in {}; the router sends each {} to {} tokens, median {}",
                                 Plural(Size(tokens), "expert"), Plural(Size(mixtures), "block"),
                                 count(*least), count(*most), count(Median(tokens)));
  const auto unreached = std::count(tokens.begin(), tokens.end(), 0.0);
  if (unreached > 0) text += fmt::format("; {} get none", unreached);
  return text;
}

std::string Events(const std::vector<Event>& events, const TextStyle& style) {
  if (events.empty()) return "";
  const auto fallbacks = std::count_if(events.begin(), events.end(),
                                       [](const Event& event) { return event.is_fallback; });
  std::string text = "\n" + Plural(Size(events), "event");
  if (fallbacks > 0) {
    text += ", " + Toned(Plural(fallbacks, "fallback"), Tone::kCaution, style);
  }
  text += "\n";
  for (const Event& event : events) {
    text +=
        Wrap(event.is_fallback ? "  ! " : "  - ",
             Printable(event.where) + (event.where.empty() ? "" : ": ") + Printable(event.what));
  }
  return text;
}

}  // namespace

std::string ToText(const InspectReport& r, const TextStyle&) {
  std::string text = Subject(r.path) + "\n";
  text += Fact("model",
               fmt::format("{}, {}, hidden {}, ffn {}", r.architecture, Plural(r.layers, "layer"),
                           FormatCount(r.hidden), FormatCount(r.ffn)));
  text += Fact("attention", fmt::format("{} of {}, {}", Plural(r.heads, "head"), r.head_dim,
                                        Plural(r.kv_heads, "key-value head")));
  text +=
      Fact("vocabulary",
           fmt::format("{} tokens, embedding and head {}; up to {} positions", FormatCount(r.vocab),
                       r.tied ? "are one tensor" : "are separate", FormatCount(r.max_positions)));
  text += Fact("format", r.format);
  if (r.kv_cache != "f32") text += Fact("KV cache", r.kv_cache);
  if (r.bits_per_weight > 0) {
    text += Fact("bits", FormatFixed(r.bits_per_weight, 2) +
                             " per quantized weight, scales and zero points included");
  }
  text += Fact("size", fmt::format("{} parameters, {} in {}", FormatParameters(r.parameters),
                                   FormatBytes(r.bytes), Plural(Size(r.files), "file")));
  Table table({"tensors", "type", "count", "parameters", "size"});
  for (const InspectedTensorGroup& group : r.groups) {
    table.Add({Printable(group.what), Printable(group.dtype), FormatCount(group.tensors),
               FormatCount(group.parameters), FormatBytes(group.bytes)});
  }
  if (!r.groups.empty()) text += "\n" + table.Render(2);
  if (!r.unknown_tensors.empty()) {
    text += "\nunknown tensors, carried through untouched\n";
    for (const std::string& name : r.unknown_tensors) text += "  - " + Printable(name) + "\n";
  }
  return text;
}

std::string ToText(const MemoryPlan& plan, const TextStyle&) {
  const auto table_of = [](const char* head, const std::vector<PlanItem>& items, int64_t total) {
    Table table({head, ""});
    for (const PlanItem& item : items) table.Add({Printable(item.what), FormatBytes(item.bytes)});
    table.Add({"total", FormatBytes(total)});
    return table.Render(0);
  };
  std::string text = table_of("planned memory", plan.items, plan.total_bytes);
  if (!plan.gpu_items.empty()) {
    text += "\n" + table_of("planned GPU memory", plan.gpu_items, plan.gpu_bytes);
  }
  for (const std::string& note : plan.notes) text += Wrap("note: ", Printable(note));
  return text;
}

std::string ToText(const QuantizeReport& r, const TextStyle& style) {
  std::string text = Toned("quantized", Tone::kGood, style) + " " + Subject(r.output) + "\n";
  text += Fact("method", r.method + ", " + Schemes(r.layers));
  text += Fact("format", r.format);
  text += Fact("weights", SizeChange(r.input_bytes, r.output_bytes));
  if (r.budget) text += Fact("budget", Spent(*r.budget));
  text += Fact("run on", r.backend);
  if (r.calibration_tokens > 0) {
    text +=
        Fact("calibration", FormatCount(r.calibration_tokens) + " tokens, forward in " + r.compute);
  }
  if (!r.mixtures.empty()) text += Fact("experts", Coverage(r.mixtures));
  text += Fact("time", FormatPhases(r.seconds));
  text += Fact("memory", fmt::format("peak {}, planned {}", FormatBytes(r.peak_rss_bytes),
                                     FormatBytes(r.planned_bytes)));
  if (r.planned_gpu_bytes > 0) {
    text += Fact("GPU memory", fmt::format("peak {}, planned {}", FormatBytes(r.peak_gpu_bytes),
                                           FormatBytes(r.planned_gpu_bytes)));
  }
  return text + WorstLayers(r.layers) + Events(r.events, style);
}

std::string ToText(const ConvertReport& r, const TextStyle&) {
  return "converted " + r.output + "\n" + Fact("from", r.input + ", " + r.from) + Fact("to", r.to) +
         Fact("size", FormatBytes(r.input_bytes) + " -> " + FormatBytes(r.output_bytes)) +
         Fact("layers", fmt::format("{}, {}", FormatCount(r.layers), FormatSeconds(r.seconds)));
}

std::string ToText(const VerifyReport& r, const TextStyle& style) {
  std::string text =
      r.passed() ? Toned("passed", Tone::kGood, style) : Toned("FAILED", Tone::kBad, style);
  text += " " + Subject(r.artifact);
  text += (r.passed() ? "" : ": " + Plural(Size(r.problems), "problem")) + "\n";
  text += Fact("format", r.format);
  text += Fact("checked", fmt::format("{} in {}, {} quantized, {}", FormatBytes(r.bytes_checked),
                                      Plural(r.tensors, "tensor"), Plural(Size(r.layers), "layer"),
                                      FormatSeconds(r.seconds)));
  text += Fact("reference", r.reference.empty()
                                ? "none: errors of the weights are not known (--reference MODEL)"
                                : r.reference);
  std::vector<double> errors;
  const VerifiedLayer* worst = nullptr;
  for (const VerifiedLayer& layer : r.layers) {
    if (!layer.weight_error) continue;
    if (!std::isnan(*layer.weight_error)) errors.push_back(*layer.weight_error);
    if (worst == nullptr || WorseError(*layer.weight_error, *worst->weight_error)) worst = &layer;
  }
  if (worst != nullptr) {
    text +=
        Fact("error", fmt::format("of weights, relative and squared: median {}, largest {} ({})",
                                  errors.empty() ? "nan" : FormatNumber(Median(errors), 3),
                                  FormatNumber(*worst->weight_error, 3), worst->name));
  }
  if (r.passed()) return text;
  text += "\n";
  for (size_t i = 0; i < std::min(r.problems.size(), kListedProblems); ++i) {
    const Problem& problem = r.problems[i];
    text += Wrap("  - ", Printable(problem.where) + ": " + Printable(problem.what));
  }
  if (r.problems.size() > kListedProblems) {
    text += fmt::format("  and {} more (--json lists all)\n",
                        FormatCount(Size(r.problems) - static_cast<int64_t>(kListedProblems)));
  }
  return text;
}

}  // namespace quantmill
