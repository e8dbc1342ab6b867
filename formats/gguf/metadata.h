// The typed key-value pairs at the head of a GGUF file.
#ifndef QUANTMILL_FORMATS_GGUF_METADATA_H_
#define QUANTMILL_FORMATS_GGUF_METADATA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace quantmill {

// Type numbers of the files.
enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12
};
inline constexpr uint32_t kGgufValueTypes = 13;

// "U32", "ARRAY", ...
std::string_view NameOf(GgufValueType type);

// Elements of one type. The format's arrays of arrays are read by no one and have no form here.
using GgufArray = std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>,
                               std::vector<int16_t>, std::vector<uint32_t>, std::vector<int32_t>,
                               std::vector<float>, std::vector<bool>, std::vector<std::string>,
                               std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;
// Strings are bytes: readers expect UTF-8, but vocabularies with broken characters exist.
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                               std::string, GgufArray, uint64_t, int64_t, double>;

GgufValueType TypeOf(const GgufValue& value);
GgufValueType ElementTypeOf(const GgufArray& array);

struct GgufEntry {
  std::string key;
  GgufValue value;
};

// Entries in the order of the file, found by key. Every getter that takes a key gives nothing where
// the key is missing, and throws Error(kBadInput) whose `where` is the file where the value has
// another type or does not fit; it names key, type and what was wanted. Pointers live as long as
// this object.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  // REQUIRES: keys differ. `where`: the file, for errors.
  GgufMetadata(std::vector<GgufEntry> entries, std::string where);

  const std::vector<GgufEntry>& entries() const { return entries_; }
  const std::string& where() const { return where_; }
  const GgufValue* Find(std::string_view key) const;

  std::optional<uint64_t> Unsigned(std::string_view key) const;  // any integer type, >= 0
  std::optional<double> Real(std::string_view key) const;        // F32 or F64
  std::optional<bool> Bool(std::string_view key) const;
  const std::string* Text(std::string_view key) const;
  // An array of exactly this element type (uint32_t, float, std::string...).
  template <typename T>
  const std::vector<T>* Array(std::string_view key) const {
    const GgufValue* value = Find(key);
    if (value == nullptr) return nullptr;
    const auto* array = std::get_if<GgufArray>(value);
    const auto* found = array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
    if (found == nullptr) {
      Fail(key, "an array of " + std::string(NameOf(ElementTypeOf(std::vector<T>()))));
    }
    return found;
  }

  // Throws the Error of a value that is not `wanted`, or that is missing.
  [[noreturn]] void Fail(std::string_view key, const std::string& wanted) const;

 private:
  std::vector<GgufEntry> entries_;
  std::vector<size_t> by_key_;  // indices into entries_
  std::string where_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_METADATA_H_
