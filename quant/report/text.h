// Reports for a person at a terminal: at most 80 columns, except where one name is longer.
#ifndef QUANTMILL_QUANT_REPORT_TEXT_H_
#define QUANTMILL_QUANT_REPORT_TEXT_H_

#include <string>

#include "quant/report/results.h"

namespace quantmill {

struct TextStyle {
  bool color = false;  // ANSI colors on the one word that matters; only for a terminal
};

// Each ends with a newline and names nothing it does not know: absent values print as "-", values
// that are no number as "nan".
std::string ToText(const InspectReport& report, const TextStyle& style = {});
std::string ToText(const MemoryPlan& plan, const TextStyle& style = {});
std::string ToText(const PlanReport& report, const TextStyle& style = {});
std::string ToText(const QuantizeReport& report, const TextStyle& style = {});
std::string ToText(const ConvertReport& report, const TextStyle& style = {});
std::string ToText(const VerifyReport& report, const TextStyle& style = {});
// The protocol comes first: without it the numbers mean nothing.
std::string ToText(const EvalReport& report, const TextStyle& style = {});
std::string ToText(const BenchReport& report, const TextStyle& style = {});
std::string ToText(const GateReport& report, const TextStyle& style = {});

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_TEXT_H_
