// The gate's verdict for CI servers.
#include <fmt/format.h>

#include <algorithm>

#include "quant/report/gate_text.h"
#include "quant/report/layout.h"
#include "quant/report/markup.h"

namespace quantmill {
namespace {

// `failure`: nothing where it passed.
std::string TestCase(const GateReport& r, std::string_view name, const std::string& failure,
                     const std::string& details, double seconds) {
  std::string text =
      fmt::format("    <testcase classname=\"quantmill.gate.{}\" name=\"{}\" time=\"{:.3f}\"",
                  EscapeMarkup(r.artifact), EscapeMarkup(name), seconds);
  if (failure.empty() && details.empty()) return text + "/>\n";
  text += ">\n";
  if (!failure.empty()) {
    text += fmt::format("      <failure message=\"{}\">{}</failure>\n", EscapeMarkup(failure),
                        EscapeMarkup(details.empty() ? failure : details));
  } else {
    text += "      <system-out>" + EscapeMarkup(details) + "</system-out>\n";
  }
  return text + "    </testcase>\n";
}

std::string FileCase(const GateReport& r) {
  std::string problems;
  for (const Problem& problem : r.verified.problems) {
    problems += (problems.empty() ? "" : "; ") + problem.where + ": " + problem.what;
  }
  const std::string failure = r.verified.passed() ? "" : FileVerdict(r.verified);
  return TestCase(r, "file", failure, problems, r.verified.seconds);
}

std::string LimitCase(const GateReport& r, const GateCheck& check) {
  const std::string found =
      fmt::format("{} measured, {} allowed", MeasuredText(check), AllowedText(check));
  const std::string details = check.note.empty() ? found : found + ": " + check.note;
  return TestCase(r, check.key, check.passed ? "" : found, details, 0);
}

}  // namespace

std::string EscapeMarkup(std::string_view text) {
  std::string result;
  for (const char c : Printable(text)) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string JUnitXml(const GateReport& r) {
  const auto broken = std::ranges::count_if(r.checks, [](const auto& c) { return !c.passed; });
  const int64_t failures = broken + (r.verified.passed() ? 0 : 1);
  const std::string counts = fmt::format(
      "name=\"quantmill gate\" tests=\"{}\" failures=\"{}\" errors=\"0\" time=\"{:.3f}\"",
      r.checks.size() + 1, failures, r.seconds);
  std::string text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  text += fmt::format("<testsuites {}>\n  <testsuite {} skipped=\"0\">\n", counts, counts);
  text += FileCase(r);
  for (const GateCheck& check : r.checks) text += LimitCase(r, check);
  return text + "  </testsuite>\n</testsuites>\n";
}

}  // namespace quantmill
