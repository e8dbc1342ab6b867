#include "formats/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "formats/file_calls.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

[[noreturn]] void ThrowInput(const std::filesystem::path& path, const std::string& what) {
  throw Error(ErrorCode::kBadInput, path.string(), what);
}

[[noreturn]] void ThrowOutput(const std::filesystem::path& path, const std::string& doing,
                              int error) {
  throw Error(ErrorCode::kEnvironment, path.string(), "cannot " + doing + ": " + Explain(error));
}

// Closes a descriptor when a function ends, however it ends.
struct ScopedDescriptor {
  int fd;
  ~ScopedDescriptor() {
    if (fd >= 0) close(fd);
  }
};

uint64_t PageSize() {
  static const auto size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// A regular file opened for reading, and its size. O_NONBLOCK: opening a pipe must not wait.
std::pair<int, uint64_t> OpenForReading(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) ThrowInput(path, std::string("cannot open: ") + std::strerror(errno));
  struct stat info {};
  const int result = fstat(fd, &info);
  const int error = errno;
  if (result == 0 && S_ISREG(info.st_mode)) return {fd, static_cast<uint64_t>(info.st_size)};
  close(fd);
  if (result != 0) ThrowInput(path, std::string("cannot open: ") + std::strerror(error));
  ThrowInput(path, S_ISDIR(info.st_mode) ? "is a folder, not a file" : "is not a regular file");
}

// Bytes read at `offset`: `size` of them, or fewer at the end of the file.
size_t ReadAt(int fd, std::byte* bytes, size_t size, uint64_t offset,
              const std::filesystem::path& path) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(fd, bytes + done, size - done, static_cast<off_t>(offset + done));
    if (got == 0) break;
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (errno != EINTR) {
      ThrowInput(path, std::string("cannot read: ") + std::strerror(errno));
    }
  }
  return done;
}

}  // namespace

MappedFile MappedFile::Open(const std::filesystem::path& path) {
  const auto [fd, size] = OpenForReading(path);
  const ScopedDescriptor closer{fd};
  if (size == 0) return MappedFile(path, {});
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED && errno == ENOMEM) ThrowOutput(path, "map", errno);
  if (data == MAP_FAILED) ThrowInput(path, std::string("cannot map: ") + std::strerror(errno));
  return MappedFile(path, {static_cast<const std::byte*>(data), size});
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::Release(uint64_t offset, uint64_t size) const {
  Check(offset <= bytes_.size() && size <= bytes_.size() - offset, "Release outside the file");
  // The system maps pages around the one that was missing, up to a huge page: those beside the
  // range go too. Whoever reads there again gets them from the file once more.
  constexpr uint64_t kFaultAround = 2 << 20;
  const uint64_t unit = std::max(PageSize(), kFaultAround);
  const uint64_t begin = offset / unit * unit;
  const uint64_t end = std::min<uint64_t>((offset + size + unit - 1) / unit * unit, bytes_.size());
  if (begin >= end) return;
  // Advice only: a failure costs memory, not correctness.
  madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

OutputFile OutputFile::Create(const std::filesystem::path& path) {
  const int fd = calls::Create(path.c_str());
  if (fd < 0) ThrowOutput(path, "create", errno);
  return OutputFile(path, fd);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      not_begun_(std::exchange(other.not_begun_, 0)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(not_begun_, other.not_begun_);
  return *this;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

void OutputFile::Reserve(uint64_t size) {
  Check(fd_ >= 0, "Reserve after Finish");
  if (size == 0) return;
  while (calls::Reserve(fd_, size) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) return;
    ThrowOutput(path_, "reserve " + std::to_string(size) + " bytes", errno);
  }
}

void OutputFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  Check(fd_ >= 0, "WriteAt after Finish");
  size_t done = 0;
  while (done < bytes.size()) {
    const int64_t wrote =
        calls::WriteAt(fd_, bytes.data() + done, bytes.size() - done, offset + done);
    if (wrote > 0) {
      done += static_cast<size_t>(wrote);
    } else if (wrote == 0) {
      ThrowOutput(path_, "write", ENOSPC);  // no progress and no reason: never spin
    } else if (errno != EINTR) {
      ThrowOutput(path_, "write", errno);
    }
  }
  constexpr uint64_t kWriteback = 16 << 20;
  not_begun_ += bytes.size();
  if (not_begun_ < kWriteback) return;
  not_begun_ = 0;
  calls::StartWriteback(fd_);  // advice only: where it fails, Finish does the work
}

void OutputFile::Finish() {
  Check(fd_ >= 0, "Finish called twice");
  // Not retried: after a failed fsync the kernel may have dropped the pages and report success.
  if (calls::Sync(fd_) != 0) ThrowOutput(path_, "sync", errno);
  // EINTR too leaves the descriptor closed on Linux.
  if (close(std::exchange(fd_, -1)) != 0 && errno != EINTR) ThrowOutput(path_, "close", errno);
}

std::optional<uint64_t> FreeBytes(const std::filesystem::path& path) {
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) != 0) return std::nullopt;
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

std::string ReadTextFile(const std::filesystem::path& path, uint64_t max_bytes) {
  const auto [fd, size] = OpenForReading(path);
  const ScopedDescriptor closer{fd};
  if (size > max_bytes) {
    ThrowInput(path, "has " + std::to_string(size) + " bytes; at most " +
                         std::to_string(max_bytes) + " are read");
  }
  std::string text(size, '\0');
  const size_t got = ReadAt(fd, std::as_writable_bytes(std::span(text)).data(), size, 0, path);
  if (got != size) ThrowInput(path, "became shorter while it was read");
  return text;
}

void WriteTextFile(const std::filesystem::path& path, std::string_view text) {
  OutputFile file = OutputFile::Create(path);
  file.WriteAt(0, BytesOf(text));
  file.Finish();
}

void CopyFile(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto [fd, size] = OpenForReading(from);
  const ScopedDescriptor closer{fd};
  OutputFile out = OutputFile::Create(to);
  // Read and write rather than copy_file_range: one path for every file system, and the errors of
  // the two sides stay apart.
  std::vector<std::byte> buffer(std::clamp<uint64_t>(size, 1, 1 << 20));
  uint64_t offset = 0;
  while (const size_t got = ReadAt(fd, buffer.data(), buffer.size(), offset, from)) {
    out.WriteAt(offset, std::span(buffer).first(got));
    offset += got;
  }
  if (offset != size) ThrowInput(from, "changed its size while it was copied");
  out.Finish();
}

}  // namespace quantmill
