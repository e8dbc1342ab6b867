// The evaluation as text: protocol, table, legend.
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "quant/report/layout.h"
#include "quant/report/text.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

std::string Protocol(const ProtocolDescription& p) {
  std::string cut = "cut without overlap, every prediction scored";
  if (p.name == "llamacpp") cut = "cut without overlap, the second half of each scored";
  std::string text =
      fmt::format("{}: {} window{} of {} tokens, {}; {}; computed in {}; ", p.name,
                  FormatCount(p.windows), p.windows == 1 ? "" : "s", FormatCount(p.window), cut,
                  p.bos ? "with BOS" : "no BOS", p.compute);
  if (p.kv_cache != "f32") text += fmt::format("keys and values in {}; ", p.kv_cache);
  text += fmt::format("{} ({} tokens, SHA-256 {})", Printable(p.text), FormatCount(p.text_tokens),
                      p.tokens_sha256.substr(0, 12));
  return Wrap("protocol  ", text);
}

// With fixed decimals, so that a column can be compared, unless that would leave nothing.
std::string Small(double x, int decimals) {
  const bool vanishes = x != 0 && std::abs(x) < 10 * std::pow(10, -decimals);
  return vanishes ? fmt::format("{:.1e}", x) : FormatFixed(x, decimals);
}

// With half the 95 % interval. It is not quite symmetric, being one of exp(mean): the JSON has both
// ends.
std::string Perplexity(const EvaluatedModel& m) {
  const auto [low, high] = m.perplexity_ci95;
  std::string mean = FormatFixed(m.perplexity, 3);
  if (low == high) return mean;  // one window: no interval
  return mean + " ± " + Small((high - low) / 2, 3);
}

std::string Uncertainty(const EvaluatedModel::Divergence& d) {
  return fmt::format("KL ± {}, largest {}; loss {:+.4f} ± {}", FormatNumber(d.kl_ci95, 2),
                     FormatNumber(d.kl_max, 3), d.delta_nll, FormatNumber(d.delta_nll_ci95, 2));
}

// A row of the table; the divergence columns only where there is a reference.
void AddModel(const EvaluatedModel& m, bool is_reference, bool with_divergence, Table& table) {
  const bool compared = with_divergence && m.divergence && !is_reference;
  std::vector<std::string> cells = {Printable(m.path), Perplexity(m)};
  if (compared) {
    const auto& d = *m.divergence;
    cells.insert(cells.end(), {Small(d.kl_mean, 4), Small(d.kl_p99, 3),
                               FormatShare(d.top1_agreement), FormatShare(d.flips)});
  } else if (with_divergence) {
    cells.insert(cells.end(), 4, "-");
  }
  cells.push_back(std::isfinite(m.tokens_per_second)
                      ? FormatCount(std::llround(m.tokens_per_second))
                      : FormatFixed(m.tokens_per_second, 0));
  table.Add(std::move(cells));
  table.AddNote(fmt::format("{}{}, {}", is_reference ? "reference: " : "", Printable(m.weights),
                            FormatBytes(m.file_bytes)));
  if (compared) table.AddNote(Uncertainty(*m.divergence));
}

std::string Legend(const EvalReport& r) {
  std::string text;
  if (!r.models.empty()) {
    text += fmt::format("{} tokens scored per model. ", FormatCount(r.models[0].tokens));
  }
  text += r.protocol.windows > 1 ? "±: 95 % interval over windows."
                                 : "One window: no interval is known.";
  text = Wrap("", text);
  if (r.reference.empty()) return text;
  return text +
         Wrap("",
              "KL(reference || model) in nats a token, and its 99th percentile; top-1: share of "
              "tokens with the same arg max; flips: right in one and wrong in the other; loss: "
              "mean difference, nats a token, paired.");
}

}  // namespace

std::string ToText(const EvalReport& r, const TextStyle&) {
  const bool compared = !r.reference.empty();
  std::vector<std::string> header = {"model", "perplexity", "tok/s"};
  if (compared) header.insert(header.begin() + 2, {"KL", "p99", "top-1", "flips"});
  Table table(std::move(header));
  if (r.reference_scores) AddModel(*r.reference_scores, true, compared, table);
  for (const EvaluatedModel& m : r.models) AddModel(m, m.path == r.reference, compared, table);
  return Protocol(r.protocol) + "\n" + table.Render(0) + "\n" + Legend(r) +
         Wrap("", fmt::format("{}, {}, peak memory {}", Printable(r.backend),
                              FormatSeconds(r.seconds), FormatBytes(r.peak_rss_bytes)));
}

}  // namespace quantmill
