// Names of outputs that promise another kind than what is made.
#ifndef QUANTMILL_TOOLS_OUTPUT_NAME_H_
#define QUANTMILL_TOOLS_OUTPUT_NAME_H_

#include <string>

namespace quantmill {

// For a command that makes a folder. Throws Error(kUsage) where `output` ends in .gguf: whoever
// names it so wants a file, and would find out when llama.cpp cannot open the folder. `way_out`:
// what to do instead. A slash behind the name says that a folder is meant.
void RefuseFolderNamedGguf(const std::string& output, const std::string& way_out);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_OUTPUT_NAME_H_
