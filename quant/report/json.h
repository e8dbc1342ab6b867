// Reports for machines. Keys are stable: they are only ever added.
#ifndef QUANTMILL_QUANT_REPORT_JSON_H_
#define QUANTMILL_QUANT_REPORT_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "quant/report/results.h"

namespace quantmill {

// Names of fields are those of results.h. Bytes are whole numbers, times seconds, shares of one.
// What is absent (no reference, no interval) is null, never left out.
nlohmann::ordered_json ToJson(const InspectReport& report);
nlohmann::ordered_json ToJson(const MemoryPlan& plan);
nlohmann::ordered_json ToJson(const BudgetOutcome& budget);
nlohmann::ordered_json ToJson(const PlanReport& report);
nlohmann::ordered_json ToJson(const ConvertReport& report);
nlohmann::ordered_json ToJson(const QuantizeReport& report);
nlohmann::ordered_json ToJson(const VerifyReport& report);
nlohmann::ordered_json ToJson(const EvalReport& report);
nlohmann::ordered_json ToJson(const BenchReport& report);
nlohmann::ordered_json ToJson(const GateReport& report);

// Valid JSON whatever the values: indented, newline at the end; NaN and infinities are null, bytes
// that are not UTF-8 become U+FFFD.
std::string JsonText(const nlohmann::ordered_json& json);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_JSON_H_
