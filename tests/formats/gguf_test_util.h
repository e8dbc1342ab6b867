// Hand-made GGUF files and blocks of the tests.
#ifndef QUANTMILL_TESTS_FORMATS_GGUF_TEST_UTIL_H_
#define QUANTMILL_TESTS_FORMATS_GGUF_TEST_UTIL_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/block_types.h"
#include "tests/formats/format_test_util.h"
#include "tests/support/random.h"

namespace quantmill::test {

// Little-endian bytes of a number.
template <typename T>
std::string Raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}
inline std::string GgufText(std::string_view text) {
  return Raw<uint64_t>(text.size()) + std::string(text);
}
inline std::string GgufHead(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
  return "GGUF" + Raw(version) + Raw(tensors) + Raw(entries);
}
// sizes: innermost first, as in the file.
inline std::string GgufInfo(std::string_view name, const std::vector<int64_t>& sizes, uint32_t type,
                            uint64_t offset) {
  std::string info = GgufText(name) + Raw(static_cast<uint32_t>(sizes.size()));
  for (const int64_t size : sizes) info += Raw(size);
  return info + Raw(type) + Raw(offset);
}
inline std::string Padded(std::string bytes, size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  return bytes;
}

inline std::vector<std::byte> BytesOfHex(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

inline std::vector<GgmlType> BlockTypes() {
  return {GgmlType::kQ4_0, GgmlType::kQ4_1,  GgmlType::kQ5_0,  GgmlType::kQ5_1,
          GgmlType::kQ8_0, GgmlType::kIq4Nl, GgmlType::kMxfp4, GgmlType::kQ2K,
          GgmlType::kQ3K,  GgmlType::kQ4K,   GgmlType::kQ5K,   GgmlType::kQ6K};
}

inline std::vector<std::byte> RandomBytes(size_t size, Random& random) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.Bits());
  return bytes;
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_FORMATS_GGUF_TEST_UTIL_H_
