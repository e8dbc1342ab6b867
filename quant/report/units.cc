#include "quant/report/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

std::string NonFinite(double x) {
  if (std::isnan(x)) return "nan";
  return x > 0 ? "inf" : "-inf";
}

// `value` with about four significant digits: 1.05, 31.2, 642.
std::string Short(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  return fmt::format("{:.{}f}", value, value < 999.95 ? 1 : 0);
}

std::string FormatMagnitude(uint64_t bytes) {
  static constexpr std::array kUnits = {"kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  for (; value >= 999.95 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  return fmt::format("{} {}", Short(value), kUnits[unit]);
}

}  // namespace

std::string FormatCount(int64_t n) {
  std::string digits = std::to_string(n);
  const size_t first = n < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3;) {
    i -= 3;
    digits.insert(i, ",");
  }
  return digits;
}

std::string FormatBytes(uint64_t bytes) { return FormatMagnitude(bytes); }

std::string FormatBytes(int64_t bytes) {
  if (bytes >= 0) return FormatMagnitude(static_cast<uint64_t>(bytes));
  return "-" + FormatMagnitude(0 - static_cast<uint64_t>(bytes));
}

std::string FormatParameters(int64_t count) {
  const double value = static_cast<double>(count);
  if (count < 1000) return std::to_string(count);
  if (value < 999'950) return fmt::format("{:.1f} K", value / 1e3);
  if (value < 999'950'000) return fmt::format("{:.1f} M", value / 1e6);
  return fmt::format("{:.2f} B", value / 1e9);
}

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds)) return NonFinite(seconds);
  if (seconds < 0.09995) return fmt::format("{:.1f} ms", seconds * 1000);
  if (seconds < 9.995) return fmt::format("{:.2f} s", seconds);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string FormatClock(double seconds) {
  if (!std::isfinite(seconds)) return NonFinite(seconds);
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole % 3600 / 60, whole % 60);
}

std::string FormatShare(double share) {
  if (!std::isfinite(share)) return NonFinite(share);
  return fmt::format("{:.1f} %", share * 100);
}

std::string FormatNumber(double x, int digits) {
  if (!std::isfinite(x)) return NonFinite(x);
  return fmt::format("{:.{}g}", x, digits);
}

std::string FormatFixed(double x, int decimals) {
  if (!std::isfinite(x)) return NonFinite(x);
  return fmt::format("{:.{}f}", x, decimals);
}

std::string FormatPhases(const PhaseSeconds& s) {
  std::string phases;
  const auto add = [&](const char* name, double seconds) {
    if (seconds < 0.005) return;  // a phase this method does not have
    phases += fmt::format("{}{} {:.2f}", phases.empty() ? "" : ", ", name, seconds);
  };
  add("load", s.load);
  add("fold", s.fold);
  add("forward", s.forward);
  add("statistics", s.statistics);
  add("solve", s.solve);
  add("write", s.write);
  add("verify", s.verify);
  return FormatSeconds(s.total) + (phases.empty() ? "" : ": " + phases);
}

int64_t ParseByteSize(const std::string& text, const std::string& where) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  std::string unit(error == std::errc() ? rest : end, end);
  std::erase(unit, ' ');
  static const std::pair<const char*, double> kUnits[] = {
      {"", 1},         {"B", 1},        {"kB", 1e3},     {"KB", 1e3},     {"K", 1e3},
      {"M", 1e6},      {"MB", 1e6},     {"G", 1e9},      {"GB", 1e9},     {"T", 1e12},
      {"TB", 1e12},    {"KiB", 0x1p10}, {"Ki", 0x1p10},  {"MiB", 0x1p20}, {"Mi", 0x1p20},
      {"GiB", 0x1p30}, {"Gi", 0x1p30},  {"TiB", 0x1p40}, {"Ti", 0x1p40}};
  for (const auto& [name, factor] : kUnits) {
    const double bytes = number * factor;
    if (error == std::errc() && unit == name && bytes >= 1 && bytes < 0x1p62) {
      return static_cast<int64_t>(bytes);
    }
  }
  throw Error(ErrorCode::kUsage, where,
              "'" + text + "' is not a size such as 2GiB, 500MB or 1048576");
}

}  // namespace quantmill
