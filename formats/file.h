// Reading and writing files with one failure policy: Error naming the path, the system's reason and
// what to do next. Whole outputs are made by OutputFolder (output_folder.h).
#ifndef QUANTMILL_FORMATS_FILE_H_
#define QUANTMILL_FORMATS_FILE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace quantmill {

// A whole file, mapped read-only. Pages are read when first touched, and given back with Release.
// Move-only; the mapping lives as long as the object, wherever it is moved to. Const methods may be
// called from any thread. The file must not be truncated while it is mapped (the system would end
// the process with SIGBUS): inputs are read, never modified.
class MappedFile {
 public:
  // Throws Error(kBadInput) if `path` is missing, is no regular file or may not be read.
  static MappedFile Open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }  // empty for an empty file

  // Tells the system that bytes [offset, offset + size) are not needed for now: they, and what
  // shares pages with them, leave resident memory; a later access reads them again. The bytes stay
  // valid.
  void Release(uint64_t offset, uint64_t size) const;

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

// A new file, written at any offset. Move-only; not thread-safe for one object.
// Every method throws Error(kEnvironment) with the system's reason (disk full, quota,
// read-only...).
class OutputFile {
 public:
  // REQUIRES: `path` does not exist (Error(kEnvironment) otherwise); its folder does.
  static OutputFile Create(const std::filesystem::path& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();  // without Finish: closes only, no error is reported

  const std::filesystem::path& path() const { return path_; }

  // Takes `size` bytes of disk now, so that a full disk is found before hours of work. The file is
  // then at least that long, the new part zero. Does nothing where the file system cannot do it.
  void Reserve(uint64_t size);
  // All of `bytes`, at `offset`; retries short and interrupted writes. Now and then the system is
  // told to begin with the disk, so that little is left for Finish.
  void WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  // fsync and close. Call once, last.
  void Finish();

 private:
  OutputFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t not_begun_ = 0;  // bytes written since the system was last told to begin
};

// The bytes of a string.
inline std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Bytes that the file system of `path` has left for us; nullopt where it does not tell.
std::optional<uint64_t> FreeBytes(const std::filesystem::path& path);

// The whole content. Throws Error(kBadInput) if the file is missing, unreadable or longer than
// `max_bytes` (no file of text is read without a bound).
std::string ReadTextFile(const std::filesystem::path& path, uint64_t max_bytes);

// A new file with this content, synced. Throws as OutputFile does.
void WriteTextFile(const std::filesystem::path& path, std::string_view text);

// Byte-exact copy of a regular file (links are followed) to the new file `to`, synced.
// Throws Error(kBadInput) for the source, Error(kEnvironment) for the destination.
void CopyFile(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_FILE_H_
