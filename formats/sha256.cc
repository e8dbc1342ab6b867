#include "formats/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "formats/file.h"
#include "kernels/core/error.h"

namespace quantmill {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  Check(
      state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
      "OpenSSL has no SHA-256");
}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  Check(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1, "SHA-256 update");
}

void Sha256::Update(std::string_view text) { Update(BytesOf(text)); }

std::string Sha256::Hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  Check(EVP_DigestFinal_ex(state_->context, digest.data(), &size) == 1, "SHA-256 final");
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

std::string Sha256Hex(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return hash.Hex();
}

std::string HashFile(const std::filesystem::path& path) {
  constexpr uint64_t kPiece = 4 << 20;  // a multiple of every page size
  const MappedFile file = MappedFile::Open(path);
  const uint64_t size = file.bytes().size();
  Sha256 hash;
  for (uint64_t offset = 0; offset < size; offset += kPiece) {
    const uint64_t piece = std::min(kPiece, size - offset);
    hash.Update(file.bytes().subspan(offset, piece));
    file.Release(offset, piece);
  }
  return hash.Hex();
}

}  // namespace quantmill
