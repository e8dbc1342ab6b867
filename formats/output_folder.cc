#include "formats/output_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "formats/file.h"
#include "formats/file_calls.h"
#include "formats/partial_output.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

namespace fs = std::filesystem;

void SyncTree(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_symlink()) continue;
    if (entry.is_directory()) {
      SyncTree(entry.path());
      continue;
    }
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) ThrowEnvironment(entry.path(), "sync", errno);
    const int result = calls::Sync(fd);
    const int error = errno;
    close(fd);
    if (result != 0) ThrowEnvironment(entry.path(), "sync", error);
  }
  SyncFolder(folder);
}

// What --force may delete: a folder that an output of ours, or a model, could be. Without this,
// `-o ~/models --force` would remove every model there.
void CheckReplaceable(const fs::path& path) {
  const auto refuse = [&](const std::string& why) {
    throw Error(
        ErrorCode::kUsage, path.string(),
        why + ", so --force does not replace it: give another output or remove it yourself");
  };
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(path, error))) refuse("is not a folder");
  bool empty = true;
  bool model = false;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    empty = false;
    if (entry.is_directory(error))
      refuse("holds the subfolder " + entry.path().filename().string());
    const std::string name = entry.path().filename().string();
    model |= name == "config.json" || name == "manifest.json";
  }
  if (error) ThrowEnvironment(path, "read", error.value());
  if (!empty && !model) refuse("has no config.json: it does not look like a model");
}

}  // namespace

OutputFolder::OutputFolder(const fs::path& final_path, bool force)
    : final_(OutputPath(final_path)), force_(force) {
  if (Exists(final_)) {
    CheckReplaceable(final_);  // before --force is offered, which would not help
    if (!force_) ThrowExists(final_);
  }
  partial_ = final_.parent_path() / (PartialPrefix(final_) + UniqueSuffix());
  // A leftover with this very name: the process number was used before, by a process now gone.
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
  if (mkdir(partial_.c_str(), 0777) != 0) ThrowEnvironment(partial_, "create", errno);
  RememberPartial(partial_);
}

OutputFolder::~OutputFolder() {
  if (committed_) return;
  std::error_code ignored;  // nothing can be reported from here
  fs::remove_all(partial_, ignored);
  ForgetPartial(partial_);
}

void OutputFolder::RequireSpace(uint64_t bytes) const {
  const std::optional<uint64_t> free = FreeBytes(partial_);
  if (!free || *free >= bytes) return;  // unknown: writing will tell
  throw Error(ErrorCode::kEnvironment, final_.parent_path().string(),
              "the output needs " + std::to_string(bytes) + " bytes, but only " +
                  std::to_string(*free) + " are free: free some space or choose another disk");
}

void OutputFolder::WriteText(std::string_view name, std::string_view text) const {
  WriteTextFile(partial_ / name, text);
}

void OutputFolder::Copy(const fs::path& from, std::string_view name) const {
  CopyFile(from, partial_ / name);
}

fs::path OutputFolder::Replace() {
  CheckReplaceable(final_);
  if (calls::Exchange(partial_.c_str(), final_.c_str()) == 0) return partial_;
  if (errno != EINVAL && errno != ENOSYS) ThrowEnvironment(final_, "rename", errno);
  // A file system without exchange: for a moment no output has the final name.
  fs::path aside =
      final_.parent_path() / ("." + final_.filename().string() + ".replaced-" + UniqueSuffix());
  if (calls::Rename(final_.c_str(), aside.c_str()) != 0) ThrowEnvironment(final_, "rename", errno);
  if (calls::Rename(partial_.c_str(), final_.c_str()) == 0) return aside;
  const int error = errno;
  // Straight to the system: a test's fault must not stop the old output from coming back.
  if (rename(aside.c_str(), final_.c_str()) != 0) {
    ThrowEnvironment(final_, "rename; the previous output is now " + aside.string(), error);
  }
  ThrowEnvironment(final_, "rename", error);
}

void OutputFolder::Commit() {
  Check(!committed_, "Commit called twice");
  try {
    SyncTree(partial_);
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorCode::kEnvironment, partial_.string(), error.what());
  }
  fs::path old;
  if (force_ && Exists(final_)) {
    old = Replace();
  } else {
    PublishNew(partial_, final_);
  }
  committed_ = true;
  SyncFolder(final_.parent_path());
  std::error_code ignored;  // the new output is in place; a remainder only costs space
  if (!old.empty()) fs::remove_all(old, ignored);
  ForgetPartial(partial_);
}

void OutputFolder::RemoveAllPartial() noexcept { RemovePartialOutputs(); }

std::vector<fs::path> Leftovers(const fs::path& final_path) {
  const fs::path path = OutputPath(final_path);
  const std::string prefix = PartialPrefix(path);
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    const int pid = std::atoi(name.c_str() + prefix.size());
    if (pid > 0 && pid != getpid() && kill(pid, 0) != 0 && errno == ESRCH) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace quantmill
