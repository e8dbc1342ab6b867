#include "tools/output_name.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "kernels/core/error.h"

namespace quantmill {

void RefuseFolderNamedGguf(const std::string& output, const std::string& way_out) {
  std::string extension = std::filesystem::path(output).extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (extension != ".gguf") return;
  throw Error(ErrorCode::kUsage, "--output",
              output + " is the name of a GGUF file, but a folder would be made; " + way_out);
}

}  // namespace quantmill
