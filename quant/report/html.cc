// The gate's verdict as a page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "quant/report/gate_text.h"
#include "quant/report/markup.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --line: #8885; --good: #1a7f37; --bad: #cf222e; --bar: #4c78a8; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #ff6b64; --bar: #79a8d8; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { border-radius: .3rem; padding: .1rem .6rem; margin-right: .6rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.verdict.good { color: #fff; background: #1a7f37; } .verdict.bad { color: #fff; background: #cf222e; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
         font-variant-numeric: tabular-nums; vertical-align: top; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
th { font-weight: 600; } .note { font-size: .85em; opacity: .8; }
.meter { width: 9rem; } .meter svg { width: 9rem; height: 1rem; vertical-align: middle; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .2rem .8rem; margin: 1rem 0; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
.layers svg { width: 100%; height: 10rem; } footer { margin-top: 2rem; font-size: .85em; opacity: .7; }
)";

std::string Cell(std::string_view tag, std::string_view content) {
  return fmt::format("<{0}>{1}</{0}>", tag, content);
}

std::string Row(std::string_view tag, const std::vector<std::string>& cells) {
  std::string row = "<tr>";
  for (const std::string& cell : cells) row += Cell(tag, cell);
  return row + "</tr>\n";
}

std::string Fact(std::string_view name, std::string_view value) {
  return Cell("dt", name) + Cell("dd", EscapeMarkup(value)) + "\n";
}

// How much of the limit `value` uses: 1 at the limit, more beyond it. Of what must be at least so
// much: what a share lacks of 1, and how many times too little a number is.
double UseOf(const GateCheck& check, double value) {
  const double most = std::numeric_limits<double>::infinity();
  const auto ratio = [&](double x, double limit) {
    return limit > 0 ? x / limit : x > 0 ? most : 0.0;
  };
  if (!check.at_least) return ratio(value, check.limit);
  if (check.unit == GateCheck::Unit::kShare) return ratio(1 - value, 1 - check.limit);
  return ratio(check.limit, value);
}

// A bar as long as the use of the limit, with its interval; a mark stands at the limit.
std::string Meter(const GateCheck& check) {
  if (!check.measured || !std::isfinite(*check.measured)) return "";
  constexpr double kLimitAt = 100;
  constexpr double kWidth = 150;
  const auto at = [&](double value) {
    return std::clamp(kLimitAt * UseOf(check, value), 0.0, kWidth);
  };
  const auto rect = [](double x, int y, double width, int height, const char* color) {
    return fmt::format("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>",
                       x, y, width, height, color);
  };
  std::string svg =
      fmt::format("<svg viewBox=\"0 0 {} 16\" preserveAspectRatio=\"none\" role=\"img\">", kWidth);
  svg += rect(0, 4, at(*check.measured), 8, check.passed ? "var(--good)" : "var(--bad)");
  if (check.half_width) {
    const double one = at(*check.measured - *check.half_width);
    const double other = at(*check.measured + *check.half_width);
    svg += rect(std::min(one, other), 7, std::abs(other - one), 2, "currentColor");
  }
  return svg + rect(kLimitAt, 0, 1.5, 16, "currentColor") + "</svg>";
}

std::string Limits(const GateReport& r) {
  std::string html = "<h2>Limits</h2>\n<table>\n";
  html += Row("th", {"limit", "allowed", "measured", "", "verdict"});
  for (const GateCheck& check : r.checks) {
    std::string name = EscapeMarkup(check.key);
    if (!check.note.empty()) name += "<div class=\"note\">" + EscapeMarkup(check.note) + "</div>";
    html += "<tr>" + Cell("td", name) + Cell("td", EscapeMarkup(AllowedText(check))) +
            Cell("td", EscapeMarkup(MeasuredText(check))) + "<td class=\"meter\">" + Meter(check) +
            "</td>" +
            fmt::format("<td class=\"{}\">{}</td></tr>\n", check.passed ? "good" : "bad",
                        check.passed ? "passed" : "failed");
  }
  return html +
         "</table>\n<p class=\"note\">Bars: how much of each limit is used, with its 95 % "
         "interval; "
         "the mark is the limit.</p>\n";
}

std::string Problems(const VerifyReport& r) {
  if (r.problems.empty()) return "";
  std::string html = "<h2>Problems of the file</h2>\n<ul>\n";
  for (const Problem& problem : r.problems) {
    html += Cell("li", EscapeMarkup(problem.where + ": " + problem.what)) + "\n";
  }
  return html + "</ul>\n";
}

std::string Models(const EvalReport& r) {
  std::string html = "<h2>Models</h2>\n<table>\n";
  html += Row("th", {"model", "perplexity", "KL", "KL p99", "top-1", "flips", "tokens/s", "size"});
  const auto add = [&](const EvaluatedModel& m) {
    std::vector<std::string> cells = {
        EscapeMarkup(m.path) + "<div class=\"note\">" + EscapeMarkup(m.weights) + "</div>",
        FormatFixed(m.perplexity, 3)};
    if (m.divergence) {
      const auto& d = *m.divergence;
      for (std::string& cell :
           std::vector<std::string>{FormatNumber(d.kl_mean, 4), FormatNumber(d.kl_p99, 3),
                                    FormatShare(d.top1_agreement), FormatShare(d.flips)}) {
        cells.push_back(std::move(cell));
      }
    } else {
      cells.insert(cells.end(), 4, "");
    }
    cells.push_back(FormatFixed(m.tokens_per_second, 0));
    cells.push_back(FormatBytes(m.file_bytes));
    html += Row("td", cells);
  };
  if (r.reference_scores) add(*r.reference_scores);
  for (const EvaluatedModel& model : r.models) add(model);
  return html + "</table>\n";
}

std::string Speeds(const BenchReport& r) {
  std::string html = fmt::format(
      "<h2>Speed</h2>\n<p class=\"note\">Prompts of {} tokens, then {} tokens each; medians of {} "
      "runs, computed in {}.</p>\n<table>\n",
      FormatCount(r.prompt_tokens), FormatCount(r.decode_tokens), r.runs, EscapeMarkup(r.compute));
  html += Row("th", {"model", "batch", "first token", "a token", "tokens/s", "speedup"});
  for (const BenchedModel& model : r.models) {
    for (const BenchRow& row : model.rows) {
      html += Row("td",
                  {EscapeMarkup(model.path), FormatCount(row.batch), FormatSeconds(row.first_token),
                   FormatSeconds(row.token), FormatFixed(row.tokens_per_second, 1),
                   row.speedup ? FormatFixed(*row.speedup, 2) : ""});
    }
  }
  return html + "</table>\n";
}

// A bar for each layer, in the file's order; its name and error show under the pointer.
std::string Layers(const VerifyReport& r) {
  std::vector<const VerifiedLayer*> known;
  double largest = 0;
  for (const VerifiedLayer& layer : r.layers) {
    if (!layer.weight_error || !std::isfinite(*layer.weight_error)) continue;
    known.push_back(&layer);
    largest = std::max(largest, *layer.weight_error);
  }
  if (known.empty() || largest <= 0) return "";
  const double step = 1000.0 / static_cast<double>(known.size());
  std::string html = fmt::format(
      "<h2>Errors of layers</h2>\n<p class=\"note\">Squared error of the weights, relative, layer "
      "by layer as the file has them; the largest is {}.</p>\n<div class=\"layers\"><svg "
      "viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" role=\"img\">\n",
      FormatNumber(largest, 3));
  for (size_t i = 0; i < known.size(); ++i) {
    const double height = 100 * *known[i]->weight_error / largest;
    html += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"var(--bar)\">"
        "<title>{}: {}</title></rect>\n",
        static_cast<double>(i) * step, 100 - height, std::max(0.8 * step, 0.5), height,
        EscapeMarkup(known[i]->name), FormatNumber(*known[i]->weight_error, 3));
  }
  return html + "</svg></div>\n";
}

}  // namespace

std::string HtmlPage(const GateReport& r) {
  const char* verdict = r.passed() ? "passed" : "failed";
  std::string html = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  html += fmt::format("<title>{}: {}</title>\n<style>{}</style>\n</head>\n<body>\n", verdict,
                      EscapeMarkup(r.artifact), kStyle);
  html += fmt::format("<h1><span class=\"verdict {}\">{}</span>{}</h1>\n<p>{}</p>\n<dl>\n",
                      r.passed() ? "good" : "bad", verdict, EscapeMarkup(r.artifact),
                      EscapeMarkup(GateSummary(r)));
  html += Fact("reference", r.reference);
  html += Fact("limits", r.limits + (r.strict ? " (strict: whole intervals)" : ""));
  html += Fact("file", FileVerdict(r.verified));
  if (r.evaluated) {
    html += Fact("text", ProtocolLine(r.evaluated->protocol));
    html += Fact("run on", r.evaluated->backend);
  }
  html += Fact("time", FormatSeconds(r.seconds)) + "</dl>\n";
  html += Limits(r) + Problems(r.verified);
  if (r.evaluated) html += Models(*r.evaluated);
  if (r.benched) html += Speeds(*r.benched);
  return html + Layers(r.verified) + "<footer>quantmill gate</footer>\n</body>\n</html>\n";
}

}  // namespace quantmill
