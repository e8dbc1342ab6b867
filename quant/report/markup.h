// Reports as files for other programs: JUnit XML for CI servers, HTML for browsers.
#ifndef QUANTMILL_QUANT_REPORT_MARKUP_H_
#define QUANTMILL_QUANT_REPORT_MARKUP_H_

#include <string>
#include <string_view>

#include "quant/report/results.h"

namespace quantmill {

// `text` as content or as an attribute of XML and HTML: printable (layout.h), `&<>"'` escaped.
std::string EscapeMarkup(std::string_view text);

// One test suite: a test case for the file, and one for each limit. A broken one has a <failure>
// with what was measured; a verdict's note is <system-out>. (The schema of Jenkins' and Maven's
// reports, which GitLab and GitHub's actions read.)
std::string JUnitXml(const GateReport& report);

// A page of its own: no script, nothing loaded from elsewhere. The verdict, each limit with a bar,
// the models side by side, and the error of each layer.
std::string HtmlPage(const GateReport& report);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_MARKUP_H_
