// An output folder that appears under its final name complete, or not at all.
#ifndef QUANTMILL_FORMATS_OUTPUT_FOLDER_H_
#define QUANTMILL_FORMATS_OUTPUT_FOLDER_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace quantmill {

// Usage: construct; write files under path(); Commit(). Until Commit everything lies in the hidden
// sibling folder `.<name>.partial-<pid>`, on the same file system, so that one rename publishes it.
// Neither copyable nor movable; not thread-safe for one object.
class OutputFolder {
 public:
  // `final_path`: the folder to make. Throws
  //   Error(kUsage)        it exists already (file, folder or link) and `force` is false, or it
  //   does
  //                        not look like an output or a model (--force must not delete a folder of
  //                        other things by mistake: no subfolders, and config.json or nothing);
  //   Error(kEnvironment)  its parent is missing, is no folder, or cannot be written.
  OutputFolder(const std::filesystem::path& final_path, bool force);
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  ~OutputFolder();  // not committed: removes the temporary folder and what it holds

  // The temporary folder: where files are written now.
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& final_path() const { return final_; }

  // Throws Error(kEnvironment) unless the file system has `bytes` free, naming both numbers.
  void RequireSpace(uint64_t bytes) const;
  // path()/name with this content.
  void WriteText(std::string_view name, std::string_view text) const;
  // A byte-exact copy of `from` as path()/name.
  void Copy(const std::filesystem::path& from, std::string_view name) const;

  // Syncs every file and folder below path(), then renames it to final_path() and syncs the parent.
  // With force, an existing output is exchanged with the new one in one step and then removed; on
  // file systems that cannot exchange, it is renamed aside first, and put back if the second rename
  // fails. Without force, an output that appeared meanwhile is refused. Throws Error(kEnvironment)
  // or Error(kUsage); the destructor then cleans up. Call once.
  void Commit();

  // Removes the temporary folders and files (single_file_output.h) of all live, uncommitted objects
  // of this process. For an exit path that skips destructors; takes a lock and allocates, so never
  // call it in a signal handler.
  static void RemoveAllPartial() noexcept;

 private:
  std::filesystem::path Replace();  // partial_ -> final_; where the old output is now

  std::filesystem::path final_;
  std::filesystem::path partial_;
  bool force_;
  bool committed_ = false;
};

// Temporary folders and files that runs toward `final_path` left behind because they were killed.
// Never removed by us: the folder may be mounted on another machine that is still writing. Throws
// Error(kUsage) for a path that cannot be an output, Error(kEnvironment) if its parent is missing.
std::vector<std::filesystem::path> Leftovers(const std::filesystem::path& final_path);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_OUTPUT_FOLDER_H_
