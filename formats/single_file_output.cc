#include "formats/single_file_output.h"

#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include "formats/file_calls.h"
#include "formats/partial_output.h"
#include "kernels/core/error.h"

namespace quantmill {

namespace fs = std::filesystem;

SingleFileOutput::SingleFileOutput(const fs::path& final_path, bool force, std::string magic)
    : final_(OutputPath(final_path)), magic_(std::move(magic)), force_(force) {
  if (Exists(final_)) {
    CheckIsNoFolder();
    if (!force_) ThrowExists(final_);
    CheckReplaceable();
  }
  partial_ = final_.parent_path() / (PartialPrefix(final_) + UniqueSuffix());
  std::error_code ignored;  // a leftover of a process that is gone: its number came again
  fs::remove_all(partial_, ignored);
  RememberPartial(partial_);
}

SingleFileOutput::~SingleFileOutput() {
  if (committed_) return;
  std::error_code ignored;  // nothing can be reported from here
  fs::remove(partial_, ignored);
  ForgetPartial(partial_);
}

// Before --force is offered, which would not help.
void SingleFileOutput::CheckIsNoFolder() const {
  std::error_code error;
  if (!fs::is_directory(final_, error)) return;
  throw Error(ErrorCode::kUsage, final_.string(),
              "is a folder, and the output is one file: name it too, such as " +
                  (final_ / "NAME").string());
}

void SingleFileOutput::CheckReplaceable() const {
  const auto refuse = [&](const std::string& why) {
    throw Error(
        ErrorCode::kUsage, final_.string(),
        why + ", so --force does not replace it: give another output or remove it yourself");
  };
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(final_, error))) refuse("is no regular file");
  std::string start(magic_.size(), '\0');
  std::ifstream in(final_, std::ios::binary);
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (in.gcount() != 0 && start != magic_) refuse("is a file of another kind");
}

void SingleFileOutput::RequireSpace(uint64_t bytes) const {
  std::error_code error;
  const fs::space_info info = fs::space(final_.parent_path(), error);
  if (error || info.available >= bytes) return;  // unknown: writing will tell
  throw Error(ErrorCode::kEnvironment, final_.parent_path().string(),
              "the output needs " + std::to_string(bytes) + " bytes, but only " +
                  std::to_string(info.available) +
                  " are free: free some space or choose another disk");
}

void SingleFileOutput::Commit() {
  Check(!committed_, "Commit called twice");
  if (force_ && Exists(final_)) {
    CheckReplaceable();
    if (calls::Rename(partial_.c_str(), final_.c_str()) != 0) {
      ThrowEnvironment(final_, "rename", errno);
    }
  } else {
    PublishNew(partial_, final_);
  }
  committed_ = true;
  ForgetPartial(partial_);
  SyncFolder(final_.parent_path());
}

}  // namespace quantmill
