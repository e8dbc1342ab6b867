// The gate's findings in words, for the terminal, JUnit and HTML alike.
#ifndef QUANTMILL_QUANT_REPORT_GATE_TEXT_H_
#define QUANTMILL_QUANT_REPORT_GATE_TEXT_H_

#include <string>

#include "quant/report/results.h"

namespace quantmill {

std::string GateSummary(const GateReport& report);    // "2 of 5 limits are broken"
std::string FileVerdict(const VerifyReport& report);  // "sound: 272 tensors, 113 MB checked"
// "12 windows of 2,048 tokens of evaluation.txt (windows), computed in f32"
std::string ProtocolLine(const ProtocolDescription& protocol);
std::string AllowedText(const GateCheck& check);   // "<= 0.05", ">= 85 %"
std::string MeasuredText(const GateCheck& check);  // "0.0313 ± 0.0013"; "-" if it was not

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_GATE_TEXT_H_
