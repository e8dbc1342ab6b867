#include "tools/version.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "formats/artifact.h"
#include "kernels/select.h"
#include "quant/model/families.h"

// From tools/CMakeLists.txt: QUANTMILL_VERSION, QUANTMILL_GIT (empty outside a checkout),
// QUANTMILL_COMPILER, QUANTMILL_BUILD_TYPE.

namespace quantmill {

VersionReport DescribeVersion() {
  const BackendInfo cpu = SelectBackend("cpu", 0)->Info();
  VersionReport report;
  report.version = QUANTMILL_VERSION;
  report.commit = QUANTMILL_GIT;
  report.compiler = QUANTMILL_COMPILER;
  report.build_type = QUANTMILL_BUILD_TYPE;
  report.isa = cpu.isa;
  report.threads = cpu.threads;
  report.isas = AvailableIsas();
  report.backends = BuiltBackends();
  for (const Family& family : Families()) report.families.emplace_back(family.name);
  report.formats = FormatNames();
  return report;
}

std::string ToText(const VersionReport& report) {
  std::string text = fmt::format("quantmill {}", report.version);
  if (!report.commit.empty()) text += fmt::format(" ({})", report.commit);
  text += fmt::format("\nbuild     {}, {}\n", report.compiler, report.build_type);
  text += fmt::format("cpu       {} (can run {}), {} threads\n", report.isa,
                      fmt::join(report.isas, ", "), report.threads);
  text += fmt::format("backends  {}\n", fmt::join(report.backends, ", "));
  text += fmt::format("families  {}\n", fmt::join(report.families, ", "));
  text += fmt::format("formats   {}\n", fmt::join(report.formats, ", "));
  return text;
}

nlohmann::ordered_json ToJson(const VersionReport& report) {
  using Json = nlohmann::ordered_json;
  return {{"version", report.version},
          {"commit", report.commit.empty() ? Json() : Json(report.commit)},
          {"compiler", report.compiler},
          {"build_type", report.build_type},
          {"isa", report.isa},
          {"isas", report.isas},
          {"threads", report.threads},
          {"backends", report.backends},
          {"families", report.families},
          {"formats", report.formats}};
}

}  // namespace quantmill
