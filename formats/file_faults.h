// For tests: makes the system calls behind OutputFile, CopyFile and OutputFolder fail on demand.
#ifndef QUANTMILL_FORMATS_FILE_FAULTS_H_
#define QUANTMILL_FORMATS_FILE_FAULTS_H_

#include <cstdint>

namespace quantmill {

// What fails while a ScopedFileFaults is alive, in the whole process. Zero errno: works.
struct FileFaults {
  int64_t write_budget = -1;   // bytes that still get written before write_errno; -1: no limit
  int write_errno = 28;        // ENOSPC
  int64_t max_write_size = 0;  // every write is cut to this size (a short write); 0: no cut
  int interrupted_writes = 0;  // this many writes fail with EINTR first
  int create_errno = 0;
  int reserve_errno = 0;
  int sync_errno = 0;
  int exchange_errno = 0;  // EINVAL: as a file system that cannot exchange two folders
  int rename_errno = 0;
  int renames_before_failure = 0;  // this many renames work before rename_errno
};

class ScopedFileFaults {
 public:
  explicit ScopedFileFaults(const FileFaults& faults);
  ~ScopedFileFaults();
  ScopedFileFaults(const ScopedFileFaults&) = delete;
  ScopedFileFaults& operator=(const ScopedFileFaults&) = delete;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_FILE_FAULTS_H_
