// SHA-256 of bytes and files (OpenSSL).
#ifndef QUANTMILL_FORMATS_SHA256_H_
#define QUANTMILL_FORMATS_SHA256_H_

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace quantmill {

// Streaming: Update any number of times, then Hex once. Move-only.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text);
  // 64 lower-case hexadecimal digits. Ends the stream: no method may follow.
  std::string Hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(std::string_view text);

// Of a file's content, with a resident set of a few MiB. Throws as MappedFile::Open does.
std::string HashFile(const std::filesystem::path& path);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_SHA256_H_
