// What this binary is.
#ifndef QUANTMILL_TOOLS_VERSION_H_
#define QUANTMILL_TOOLS_VERSION_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace quantmill {

// No path of the machine that built it.
struct VersionReport {
  std::string version;
  std::string commit;  // empty: built outside a checkout
  std::string compiler;
  std::string build_type;
  std::string isa;                // that the CPU backend uses here
  std::vector<std::string> isas;  // that this CPU can run
  int threads = 0;
  std::vector<std::string> backends;
  std::vector<std::string> families;
  std::vector<std::string> formats;  // that can be written
};

// Throws as SelectBackend does when QUANTMILL_ISA cannot be had.
VersionReport DescribeVersion();

// For --version: a line each.
std::string ToText(const VersionReport& report);
// The same for machines; what is not known is null.
nlohmann::ordered_json ToJson(const VersionReport& report);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_VERSION_H_
