// Numbers as people read and write them.
#ifndef QUANTMILL_QUANT_REPORT_UNITS_H_
#define QUANTMILL_QUANT_REPORT_UNITS_H_

#include <cstdint>
#include <string>

#include "quant/report/results.h"

namespace quantmill {

std::string FormatCount(int64_t n);           // "1,234,567"
std::string FormatBytes(uint64_t bytes);      // decimal units, as file sizes: "113.2 MB", "640 B"
std::string FormatBytes(int64_t bytes);       // the same; negative ones too
std::string FormatParameters(int64_t count);  // "3.7 M", "1.10 B", "512"
// A length of time: "3.1 ms", "0.42 s", "31.2 s", "2 min 05 s", "1 h 02 min".
std::string FormatSeconds(double seconds);
// As a clock, for a progress line: "0:12", "1:02:03".
std::string FormatClock(double seconds);
std::string FormatShare(double share);  // of one: "91.2 %"
// `digits` significant digits, without trailing noise: "0.00312", "20.1", "3.1e-05".
std::string FormatNumber(double x, int digits);
std::string FormatFixed(double x, int decimals);  // "20.1130"
// "31.2 s: load 0.10, forward 20.1, solve 11": phases that took no time are left out.
std::string FormatPhases(const PhaseSeconds& seconds);
// All of the above print a value that is not a number as "nan", and infinities as "inf" and "-inf".

// "2GiB", "500MB", "1.5 G" (decimal), "1048576" -> bytes. Throws Error(kUsage, where).
int64_t ParseByteSize(const std::string& text, const std::string& where);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_UNITS_H_
