#include "quant/report/gate_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/report/units.h"

namespace quantmill {
namespace {

std::string Plural(int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", FormatCount(count), noun, count == 1 ? "" : "s");
}

std::string Value(GateCheck::Unit unit, double value) {
  switch (unit) {
    case GateCheck::Unit::kNumber:
      return FormatNumber(value, 4);
    case GateCheck::Unit::kShare:
      return FormatNumber(100 * value, 3) + " %";
    case GateCheck::Unit::kBytes:
      return FormatBytes(static_cast<uint64_t>(value));
    case GateCheck::Unit::kCount:
      return FormatCount(static_cast<int64_t>(value));
  }
  return "";
}

}  // namespace

std::string GateSummary(const GateReport& r) {
  const auto broken = std::ranges::count_if(r.checks, [](const auto& c) { return !c.passed; });
  std::string text = r.verified.passed()
                         ? ""
                         : Plural(std::ssize(r.verified.problems), "problem") + " of the file, ";
  const std::string limits = Plural(std::ssize(r.checks), "limit");
  return text + (broken == 0 ? limits + " kept" : fmt::format("{} of {} broken", broken, limits));
}

std::string FileVerdict(const VerifyReport& r) {
  return fmt::format("{}: {}, {} checked, {}", r.passed() ? "sound" : "DAMAGED",
                     Plural(r.tensors, "tensor"), FormatBytes(r.bytes_checked), r.format);
}

std::string ProtocolLine(const ProtocolDescription& p) {
  return fmt::format("{} of {} tokens of {} ({}, SHA-256 {}), computed in {}",
                     Plural(p.windows, "window"), FormatCount(p.window), p.text, p.name,
                     p.tokens_sha256.substr(0, 12), p.compute);
}

std::string AllowedText(const GateCheck& check) {
  return (check.at_least ? ">= " : "<= ") + Value(check.unit, check.limit);
}

std::string MeasuredText(const GateCheck& check) {
  if (!check.measured) return "-";
  std::string text = Value(check.unit, *check.measured);
  if (!check.half_width) return text;
  const bool share = check.unit == GateCheck::Unit::kShare;
  return text + " ± " + FormatNumber((share ? 100 : 1) * *check.half_width, 2);
}

}  // namespace quantmill
