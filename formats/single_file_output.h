// An output of one file that appears under its final name complete, or not at all: what
// OutputFolder (output_folder.h) is for folders.
#ifndef QUANTMILL_FORMATS_SINGLE_FILE_OUTPUT_H_
#define QUANTMILL_FORMATS_SINGLE_FILE_OUTPUT_H_

#include <cstdint>
#include <filesystem>
#include <string>

namespace quantmill {

// Usage: construct; create the file path() and finish it (synced); Commit(). Until Commit it is the
// hidden sibling `.<name>.partial-<pid>`. Neither copyable nor movable; not thread-safe for one
// object. OutputFolder::RemoveAllPartial covers these files too.
class SingleFileOutput {
 public:
  // `magic`: the first bytes of every file of the format. Throws
  //   Error(kUsage)        final_path exists already and `force` is false, or it is no regular file
  //                        that is empty or begins with `magic` (--force must not delete a file of
  //                        another kind by mistake);
  //   Error(kEnvironment)  its parent is missing or is no folder.
  SingleFileOutput(const std::filesystem::path& final_path, bool force, std::string magic);
  SingleFileOutput(const SingleFileOutput&) = delete;
  SingleFileOutput& operator=(const SingleFileOutput&) = delete;
  ~SingleFileOutput();  // not committed: removes the temporary file

  // The temporary file: to be created there by the caller.
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& final_path() const { return final_; }

  // Throws Error(kEnvironment) unless the file system has `bytes` free, naming both numbers.
  void RequireSpace(uint64_t bytes) const;

  // Renames path() to final_path(), with force in the place of an older file, and syncs the folder.
  // Without force, a file that appeared meanwhile is refused. Throws Error(kEnvironment) or
  // Error(kUsage). Call once.
  void Commit();

 private:
  void CheckIsNoFolder() const;
  void CheckReplaceable() const;

  std::filesystem::path final_;
  std::filesystem::path partial_;
  std::string magic_;
  bool force_;
  bool committed_ = false;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_SINGLE_FILE_OUTPUT_H_
