// A text file that a command writes at its end, and tries before its work.
#ifndef QUANTMILL_TOOLS_TEXT_OUTPUT_H_
#define QUANTMILL_TOOLS_TEXT_OUTPUT_H_

#include <string>
#include <string_view>

#include "formats/file.h"
#include "formats/single_file_output.h"

namespace quantmill {

// Neither copyable nor movable. Until Write the file is a hidden sibling (SingleFileOutput).
class TextOutput {
 public:
  // Replaces an older file only if it is empty or begins with `magic`. Throws Error(kUsage) for
  // another file, Error(kEnvironment) where none can be written.
  TextOutput(const std::string& path, std::string magic)
      : output_(path, true, std::move(magic)), file_(OutputFile::Create(output_.path())) {}

  // Call once.
  void Write(std::string_view text) {
    file_.WriteAt(0, BytesOf(text));
    file_.Finish();
    output_.Commit();
  }

 private:
  SingleFileOutput output_;
  OutputFile file_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_TEXT_OUTPUT_H_
