#include "formats/kept_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "formats/file.h"
#include "formats/file_calls.h"
#include "formats/partial_output.h"
#include "kernels/core/error.h"

namespace quantmill {

namespace fs = std::filesystem;

fs::path KeptFolder::PathOf(const fs::path& final_path, std::string_view purpose) {
  const fs::path output = OutputPath(final_path);
  return output.parent_path() / ("." + output.filename().string() + "." + std::string(purpose));
}

KeptFolder::KeptFolder(const fs::path& final_path, std::string_view purpose)
    : path_(PathOf(final_path, purpose)) {
  // Its last user may remove the folder between our opening and locking it.
  while (!Lock()) close(fd_);
  if (!kept_) RememberPartial(path_);
}

KeptFolder::~KeptFolder() {
  if (!kept_) Remove();
  close(fd_);
}

void KeptFolder::Keep() {
  kept_ = true;
  ForgetPartial(path_);
}

bool KeptFolder::Lock() {
  kept_ = mkdir(path_.c_str(), 0777) != 0;
  if (kept_ && errno != EEXIST) ThrowEnvironment(path_, "create", errno);
  fd_ = open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) {
    if (errno == ENOENT) return false;
    ThrowEnvironment(path_, "open", errno);
  }
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    close(fd_);
    if (error != EWOULDBLOCK) ThrowEnvironment(path_, "lock", error);
    throw Error(ErrorCode::kUsage, path_.string(),
                "another process is writing this output; wait for it or choose another name");
  }
  struct stat ours {};
  struct stat there {};
  return fstat(fd_, &ours) == 0 && stat(path_.c_str(), &there) == 0 &&
         ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

void KeptFolder::PutText(std::string_view name, std::string_view text) const {
  const fs::path to = path_ / name;
  fs::path unfinished = to;
  unfinished += ".unfinished";
  std::error_code ignored;
  fs::remove(unfinished, ignored);
  WriteTextFile(unfinished, text);
  if (calls::Rename(unfinished.c_str(), to.c_str()) != 0) ThrowEnvironment(to, "rename", errno);
  SyncFolder(path_);
}

void KeptFolder::Clear() const noexcept {
  std::error_code ignored;  // what stays is overwritten, or told by whoever reads it
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    fs::remove_all(entry.path(), ignored);
  }
}

void KeptFolder::Remove() noexcept {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  ForgetPartial(path_);
}

}  // namespace quantmill
