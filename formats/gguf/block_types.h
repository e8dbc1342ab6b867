// The element types of GGUF tensors, as ggml numbers them. All are known by name, so that what is
// not read here can be refused by name; formats/gguf/codec.h says which are read and written.
#ifndef QUANTMILL_FORMATS_GGUF_BLOCK_TYPES_H_
#define QUANTMILL_FORMATS_GGUF_BLOCK_TYPES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace quantmill {

// Numbers are those of the files. Not to be confused with general.file_type, another numbering.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2K = 10,
  kQ3K = 11,
  kQ4K = 12,
  kQ5K = 13,
  kQ6K = 14,
  kQ8K = 15,
  kIq2Xxs = 16,
  kIq2Xs = 17,
  kIq3Xxs = 18,
  kIq1S = 19,
  kIq4Nl = 20,
  kIq3S = 21,
  kIq2S = 22,
  kIq4Xs = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIq1M = 29,
  kBf16 = 30,
  kTq1_0 = 34,
  kTq2_0 = 35,
  kMxfp4 = 39,
  kNvfp4 = 40,
  kQ1_0 = 41,
  kQ2_0 = 42
};

// How the elements of a row lie in the file: blocks of `block_elements` along the innermost
// dimension, `block_bytes` each.
struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;  // "Q4_K", as ggml spells it in upper case
  int64_t block_elements = 0;
  int64_t block_bytes = 0;
};

// Every type of GgmlType, in the order of their numbers.
std::span<const GgmlTypeInfo> AllGgmlTypes();

const GgmlTypeInfo& InfoOf(GgmlType type);
inline std::string_view NameOf(GgmlType type) { return InfoOf(type).name; }

// Of a number as it stands in a file; nullopt if ggml never had such a type or has removed it.
std::optional<GgmlType> GgmlTypeFromId(uint32_t id);
// The name of a type that ggml has removed ("Q4_2", "Q4_0_4_4"...), or "".
std::string_view RemovedGgmlTypeName(uint32_t id);
// Of a name, in upper case ("Q4_K"); nullopt for others.
std::optional<GgmlType> GgmlTypeFromName(std::string_view name);

// Bytes of a row of `elements`; nullopt unless they fill whole blocks and the size fits. `elements`
// >= 0.
std::optional<uint64_t> RowBytes(GgmlType type, int64_t elements);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_BLOCK_TYPES_H_
