// Speeds as text: what was run, a table a model.
#include <fmt/format.h>

#include <string>

#include "quant/report/layout.h"
#include "quant/report/text.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

std::string Times(const std::optional<double>& factor) {
  return factor ? FormatFixed(*factor, 2) + "x" : "-";
}

std::string Heading(const BenchedModel& m) {
  std::string text = fmt::format("{}, {}, cache {}", Printable(m.weights),
                                 FormatBytes(m.file_bytes), Printable(m.kv_cache));
  text += fmt::format("; {} packed", FormatBytes(m.weight_bytes));
  if (m.read_bandwidth) {
    text += fmt::format(", which reading alone takes {}",
                        FormatSeconds(static_cast<double>(m.weight_bytes) / *m.read_bandwidth));
  }
  return Printable(m.path) + "\n" + Wrap("  ", text);
}

}  // namespace

std::string ToText(const BenchReport& r, const TextStyle&) {
  std::string text = Wrap(
      "protocol  ",
      fmt::format("prompts of {} random tokens, one by one; then {} tokens of all sequences "
                  "together, the likeliest each; computed in {}; medians of {} run{}, the models "
                  "in turns",
                  FormatCount(r.prompt_tokens), FormatCount(r.decode_tokens), r.compute, r.runs,
                  r.runs == 1 ? "" : "s"));
  for (const BenchedModel& model : r.models) {
    text += "\n" + Heading(model);
    Table table({"batch", "TTFT", "TPOT", "p99", "tok/s", "of memory", "speedup"});
    for (const BenchRow& row : model.rows) {
      table.Add({FormatCount(row.batch), FormatSeconds(row.first_token), FormatSeconds(row.token),
                 FormatSeconds(row.token_p99), FormatFixed(row.tokens_per_second, 1),
                 row.bandwidth_share ? FormatShare(*row.bandwidth_share) : "-",
                 Times(row.speedup)});
    }
    text += table.Render(2);
  }
  text += "\n" + Wrap("",
                      "TTFT: a prompt alone to its first token; TPOT: a step, one token of each "
                      "sequence; p99: of the steps; of memory: what the weights' bytes a step are "
                      "of reading alone" +
                          (r.reference.empty()
                               ? "."
                               : "; speedup: of a step, over " + Printable(r.reference) + "."));
  return text + Wrap("", fmt::format("{}, {}, peak memory {}", Printable(r.backend),
                                     FormatSeconds(r.seconds), FormatBytes(r.peak_rss_bytes)));
}

}  // namespace quantmill
