// Reads numbers and strings of a GGUF header one after another, none past its end. Private to
// formats/.
#ifndef QUANTMILL_FORMATS_GGUF_CURSOR_H_
#define QUANTMILL_FORMATS_GGUF_CURSOR_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "kernels/core/error.h"

namespace quantmill {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

class Cursor {
 public:
  // `bytes` and `path` must outlive this object.
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  // `what` names the thing read, for the error that the file ends inside it.
  template <typename T>
  T Number(std::string_view what) {
    static_assert(std::is_arithmetic_v<T>);
    Require(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  // A length and as many bytes.
  std::string Text(std::string_view what) {
    const auto size = Number<uint64_t>(what);
    Require(size, what);
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + offset_, size);
    offset_ += size;
    return std::string(text);
  }

  // Throws unless `count` things of at least `bytes_each` (> 0) bytes can follow.
  void RequireCount(uint64_t count, uint64_t bytes_each, std::string_view what) const {
    if (count <= left() / bytes_each) return;
    Fail(std::string(what) + ": " + std::to_string(count) + " cannot fit into the " +
         std::to_string(left()) + " bytes that are left: no valid file, or cut short");
  }

  [[noreturn]] void Fail(const std::string& what) const { FailAt(offset_, what); }
  [[noreturn]] void FailAt(uint64_t offset, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, path_,
                what + " (byte offset " + std::to_string(offset) + ")");
  }

 private:
  void Require(uint64_t size, std::string_view what) const {
    if (size <= left()) return;
    Fail(std::string(what) + " needs " + std::to_string(size) + " bytes, but the file ends after " +
         std::to_string(left()) + ": it is cut short");
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t offset_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_CURSOR_H_
