#include "tools/version.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "kernels/select.h"
#include "quant/model/families.h"

// From tools/CMakeLists.txt: QUANTMILL_VERSION, QUANTMILL_GIT (empty outside a checkout),
// QUANTMILL_COMPILER, QUANTMILL_BUILD_TYPE.

namespace quantmill {

std::string VersionText() {
  const BackendInfo cpu = SelectBackend("cpu", 0)->Info();
  std::vector<std::string_view> families;
  for (const Family& family : Families()) families.push_back(family.name);
  const std::string_view git = QUANTMILL_GIT;
  std::string text = fmt::format("quantmill {}", QUANTMILL_VERSION);
  if (!git.empty()) text += fmt::format(" ({})", git);
  text += fmt::format("\nbuild     {}, {}\n", QUANTMILL_COMPILER, QUANTMILL_BUILD_TYPE);
  text += fmt::format("cpu       {} (can run {}), {} threads\n", cpu.isa,
                      fmt::join(AvailableIsas(), ", "), cpu.threads);
  text += fmt::format("backends  {}\n", fmt::join(BuiltBackends(), ", "));
  text += fmt::format("families  {}\n", fmt::join(families, ", "));
  text += "formats   compressed-tensors\n";
  return text;
}

}  // namespace quantmill
