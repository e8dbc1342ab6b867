#include "formats/file_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <string>

#include "formats/file_faults.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// The faults in force. The lock is uncontended outside tests and cheap beside a system call.
std::mutex faults_mutex;
FileFaults faults;

int Fail(int error) {
  errno = error;
  return -1;
}

// Zero, or the errno that a fault asks for.
int FaultOf(int FileFaults::*member) {
  const std::lock_guard lock(faults_mutex);
  return faults.*member;
}

// How much of a write of `size` bytes may go to the disk, or -1 with errno set.
int64_t AdmitWrite(size_t size) {
  const std::lock_guard lock(faults_mutex);
  if (faults.interrupted_writes > 0) {
    --faults.interrupted_writes;
    return Fail(EINTR);
  }
  auto admitted = static_cast<int64_t>(size);
  if (faults.max_write_size > 0) admitted = std::min(admitted, faults.max_write_size);
  if (faults.write_budget >= 0) {
    if (faults.write_budget == 0 && size > 0) return Fail(faults.write_errno);
    admitted = std::min(admitted, faults.write_budget);
    faults.write_budget -= admitted;
  }
  return admitted;
}

int RenameFault() {
  const std::lock_guard lock(faults_mutex);
  if (faults.rename_errno == 0) return 0;
  return faults.renames_before_failure-- > 0 ? 0 : faults.rename_errno;
}

}  // namespace

ScopedFileFaults::ScopedFileFaults(const FileFaults& wanted) {
  const std::lock_guard lock(faults_mutex);
  faults = wanted;
}

ScopedFileFaults::~ScopedFileFaults() {
  const std::lock_guard lock(faults_mutex);
  faults = FileFaults{};
}

namespace calls {

int Create(const char* path) {
  if (const int fault = FaultOf(&FileFaults::create_errno)) return Fail(fault);
  return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

int64_t WriteAt(int fd, const std::byte* bytes, size_t size, uint64_t offset) {
  const int64_t admitted = AdmitWrite(size);
  if (admitted < 0) return -1;
  return pwrite(fd, bytes, static_cast<size_t>(admitted), static_cast<off_t>(offset));
}

int Reserve(int fd, uint64_t size) {
  if (const int fault = FaultOf(&FileFaults::reserve_errno)) return Fail(fault);
  // Not posix_fallocate: where the file system lacks the call, that one writes every block.
  return fallocate(fd, 0, 0, static_cast<off_t>(size));
}

int StartWriteback(int fd) { return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); }

int Sync(int fd) {
  if (const int fault = FaultOf(&FileFaults::sync_errno)) return Fail(fault);
  return fsync(fd);
}

int Rename(const char* from, const char* to) {
  if (const int fault = RenameFault()) return Fail(fault);
  return rename(from, to);
}

int RenameExclusive(const char* from, const char* to) {
  if (const int fault = RenameFault()) return Fail(fault);
  const int result = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
  if (result == 0 || (errno != EINVAL && errno != ENOSYS)) return result;
  // A file system without the flag (NFS, some overlays): a plain rename after a look. It refuses a
  // folder that is not empty by itself, so only the replacing of an empty one could slip through.
  struct stat info;
  if (lstat(to, &info) == 0) return Fail(EEXIST);
  return rename(from, to);
}

int Exchange(const char* one, const char* two) {
  if (const int fault = FaultOf(&FileFaults::exchange_errno)) return Fail(fault);
  if (const int fault = RenameFault()) return Fail(fault);
  return renameat2(AT_FDCWD, one, AT_FDCWD, two, RENAME_EXCHANGE);
}

}  // namespace calls

std::string Explain(int error) {
  std::string reason = std::strerror(error);
  switch (error) {
    case ENOSPC:
      return reason + ": free some space or choose an output on another disk";
    case EDQUOT:
      return reason + ": free some of your quota or choose an output on another disk";
    case EROFS:
      return reason + ": choose an output on a disk that can be written";
    case EACCES:
    case EPERM:
      return reason + ": choose an output folder that you may write to";
    case ENOENT:
      return reason + ": create the folder above it first";
    case EMFILE:
    case ENFILE:
      return reason + ": raise the limit (ulimit -n) or use larger shards";
    case EFBIG:
      return reason + ": this file system has a smaller limit; use smaller shards";
    case EIO:
      return reason + ": the disk reports a fault; check its log before trying again";
    default:
      return reason;
  }
}

void SyncFolder(const std::filesystem::path& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw Error(ErrorCode::kEnvironment, folder.string(), Explain(errno));
  const int result = calls::Sync(fd);
  const int error = errno;
  close(fd);
  // EINVAL: a file system on which folders cannot be synced; there is nothing more to do.
  if (result != 0 && error != EINVAL) {
    throw Error(ErrorCode::kEnvironment, folder.string(), "cannot sync: " + Explain(error));
  }
}

}  // namespace quantmill
