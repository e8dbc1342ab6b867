// The gate's verdict as text: the verdict, the file, a table of limits.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "quant/report/gate_text.h"
#include "quant/report/layout.h"
#include "quant/report/text.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

constexpr size_t kListedProblems = 20;

std::string Colored(std::string_view word, bool good, const TextStyle& style) {
  return style.color ? fmt::format("\x1b[1;{}m{}\x1b[0m", good ? 32 : 31, word) : std::string(word);
}

std::string Fact(std::string_view name, std::string_view value) {
  return Wrap(fmt::format("  {:<12}", name), Printable(value));
}

}  // namespace

std::string ToText(const GateReport& r, const TextStyle& style) {
  const VerifyReport& file = r.verified;
  std::string text = Colored(r.passed() ? "passed" : "FAILED", r.passed(), style);
  text += " " + Printable(r.artifact) + ": " + GateSummary(r) + "\n";
  text += Fact("reference", r.reference);
  text += Fact("limits", r.limits + (r.strict ? " (strict: whole intervals)" : ""));
  text += Fact("file", FileVerdict(file));
  if (r.evaluated) text += Fact("text", ProtocolLine(r.evaluated->protocol));
  Table table({"limit", "allowed", "measured", "verdict"});
  for (const GateCheck& check : r.checks) {
    table.Add({check.key, AllowedText(check), MeasuredText(check),
               Colored(check.passed ? "passed" : "FAILED", check.passed, style)});
    if (!check.note.empty()) table.AddNote(Printable(check.note));
  }
  text += "\n" + table.Render(2);
  if (!file.problems.empty()) text += "\nproblems of the file\n";
  for (size_t i = 0; i < std::min(file.problems.size(), kListedProblems); ++i) {
    const Problem& problem = file.problems[i];
    text += Wrap("  - ", Printable(problem.where) + ": " + Printable(problem.what));
  }
  if (file.problems.size() > kListedProblems) {
    text +=
        fmt::format("  and {} more (--json lists all)\n",
                    FormatCount(std::ssize(file.problems) - static_cast<int64_t>(kListedProblems)));
  }
  return text;
}

}  // namespace quantmill
