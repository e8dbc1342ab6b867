// What this binary is.
#ifndef QUANTMILL_TOOLS_VERSION_H_
#define QUANTMILL_TOOLS_VERSION_H_

#include <string>

namespace quantmill {

// For --version: version, compiler, build type, CPU, backends, model families, formats. No path of
// the machine that built it. Throws as SelectBackend does when QUANTMILL_ISA cannot be had.
std::string VersionText();

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_VERSION_H_
