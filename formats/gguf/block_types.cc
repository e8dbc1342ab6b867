#include "formats/gguf/block_types.h"

#include <algorithm>
#include <array>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

using enum GgmlType;

constexpr GgmlTypeInfo kTypes[] = {
    {kF32, "F32", 1, 4},
    {kF16, "F16", 1, 2},
    {kQ4_0, "Q4_0", 32, 18},
    {kQ4_1, "Q4_1", 32, 20},
    {kQ5_0, "Q5_0", 32, 22},
    {kQ5_1, "Q5_1", 32, 24},
    {kQ8_0, "Q8_0", 32, 34},
    {kQ8_1, "Q8_1", 32, 36},
    {kQ2K, "Q2_K", 256, 84},
    {kQ3K, "Q3_K", 256, 110},
    {kQ4K, "Q4_K", 256, 144},
    {kQ5K, "Q5_K", 256, 176},
    {kQ6K, "Q6_K", 256, 210},
    {kQ8K, "Q8_K", 256, 292},
    {kIq2Xxs, "IQ2_XXS", 256, 66},
    {kIq2Xs, "IQ2_XS", 256, 74},
    {kIq3Xxs, "IQ3_XXS", 256, 98},
    {kIq1S, "IQ1_S", 256, 50},
    {kIq4Nl, "IQ4_NL", 32, 18},
    {kIq3S, "IQ3_S", 256, 110},
    {kIq2S, "IQ2_S", 256, 82},
    {kIq4Xs, "IQ4_XS", 256, 136},
    {kI8, "I8", 1, 1},
    {kI16, "I16", 1, 2},
    {kI32, "I32", 1, 4},
    {kI64, "I64", 1, 8},
    {kF64, "F64", 1, 8},
    {kIq1M, "IQ1_M", 256, 56},
    {kBf16, "BF16", 1, 2},
    {kTq1_0, "TQ1_0", 256, 54},
    {kTq2_0, "TQ2_0", 256, 66},
    {kMxfp4, "MXFP4", 32, 17},
    {kNvfp4, "NVFP4", 64, 36},
    {kQ1_0, "Q1_0", 128, 18},
    {kQ2_0, "Q2_0", 64, 18},
};

struct RemovedType {
  uint32_t id;
  std::string_view name;
};
// Files of these exist; ggml has not read them for years.
constexpr RemovedType kRemoved[] = {
    {4, "Q4_2"},      {5, "Q4_3"},        {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"},
};

constexpr size_t kMissing = std::size(kTypes);

// From the number to the row of kTypes: files with many tensors look types up by the thousand.
constexpr auto kRowOf = [] {
  std::array<size_t, 64> rows{};
  rows.fill(kMissing);
  for (size_t i = 0; i < std::size(kTypes); ++i) rows[static_cast<size_t>(kTypes[i].type)] = i;
  return rows;
}();

}  // namespace

std::span<const GgmlTypeInfo> AllGgmlTypes() { return kTypes; }

const GgmlTypeInfo& InfoOf(GgmlType type) {
  const auto id = static_cast<size_t>(type);
  Check(id < kRowOf.size() && kRowOf[id] != kMissing, "no such ggml type");
  return kTypes[kRowOf[id]];
}

std::optional<GgmlType> GgmlTypeFromId(uint32_t id) {
  if (id >= kRowOf.size() || kRowOf[id] == kMissing) return std::nullopt;
  return static_cast<GgmlType>(id);
}

std::string_view RemovedGgmlTypeName(uint32_t id) {
  const auto* row = std::find_if(std::begin(kRemoved), std::end(kRemoved),
                                 [&](const RemovedType& removed) { return removed.id == id; });
  return row == std::end(kRemoved) ? std::string_view() : row->name;
}

std::optional<GgmlType> GgmlTypeFromName(std::string_view name) {
  const auto* row = std::find_if(std::begin(kTypes), std::end(kTypes),
                                 [&](const GgmlTypeInfo& info) { return info.name == name; });
  if (row == std::end(kTypes)) return std::nullopt;
  return row->type;
}

std::optional<uint64_t> RowBytes(GgmlType type, int64_t elements) {
  const GgmlTypeInfo& info = InfoOf(type);
  Check(elements >= 0, "a row has a negative number of elements");
  uint64_t bytes = 0;
  if (elements % info.block_elements != 0 ||
      __builtin_mul_overflow(static_cast<uint64_t>(elements / info.block_elements),
                             static_cast<uint64_t>(info.block_bytes), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace quantmill
