// A hidden folder beside an output that outlives the process, for what a later one can use.
#ifndef QUANTMILL_FORMATS_KEPT_FOLDER_H_
#define QUANTMILL_FORMATS_KEPT_FOLDER_H_

#include <filesystem>
#include <string_view>

namespace quantmill {

// One process uses it at a time: the lock ends with the process, however that ends. Neither
// copyable nor movable; not thread-safe.
class KeptFolder {
 public:
  // `.<name>.<purpose>` beside the output. Throws as the constructor for `final_path`.
  static std::filesystem::path PathOf(const std::filesystem::path& final_path,
                                      std::string_view purpose);
  // Opens or makes it. A new one is removed with this object, and with the partial outputs of
  // OutputFolder::RemoveAllPartial, until Keep. Throws Error(kUsage) for a path that cannot be an
  // output, or where another process uses the folder; Error(kEnvironment) if the parent is missing
  // or the folder cannot be made.
  KeptFolder(const std::filesystem::path& final_path, std::string_view purpose);
  KeptFolder(const KeptFolder&) = delete;
  KeptFolder& operator=(const KeptFolder&) = delete;
  ~KeptFolder();

  const std::filesystem::path& path() const { return path_; }
  // path()/name with this content, in one step: after a crash the file is whole or absent. Throws
  // Error(kEnvironment).
  void PutText(std::string_view name, std::string_view text) const;
  void Keep();  // from now on it stays
  // Deletes what is in it.
  void Clear() const noexcept;
  // Deletes it, too. The lock is held until the end of this object.
  void Remove() noexcept;

 private:
  bool Lock();

  std::filesystem::path path_;
  int fd_ = -1;
  bool kept_ = true;  // unless it is new
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_KEPT_FOLDER_H_
