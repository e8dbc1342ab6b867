// The blocks of ggml's quantized types in plain form, and their packing. A block holds the numbers
// of the file, nothing derived: Pack and Unpack are exact inverses for every block whose fields are
// in range (Check) and for every sequence of bytes.
//
// d, m and dmin are F16 of any sign; code i belongs to element i of the block. Packed, blocks of 32
// keep the low four bits of codes j and j + 16 in the low and high half of byte j; the layout of
// super-blocks (256) is at each Pack. Byte table: formats.md section 7.3.
#ifndef QUANTMILL_FORMATS_GGUF_BLOCKS_H_
#define QUANTMILL_FORMATS_GGUF_BLOCKS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/gguf/block_types.h"
#include "kernels/core/dtype.h"

namespace quantmill {

inline constexpr int kBlock = 32;
inline constexpr int kSuperBlock = 256;

// value = (code - kZero) * d, codes in [0, 2 kZero - 1].
template <GgmlType type, int zero>
struct CenteredBlock {
  static constexpr GgmlType kType = type;
  static constexpr int kZero = zero;
  static constexpr int kMaxCode = 2 * zero - 1;
  F16 d;
  std::array<uint8_t, kBlock> codes{};
  friend bool operator==(const CenteredBlock&, const CenteredBlock&) = default;
};
using BlockQ4_0 = CenteredBlock<GgmlType::kQ4_0, 8>;
using BlockQ5_0 = CenteredBlock<GgmlType::kQ5_0, 16>;

// value = code * d + m, codes in [0, kMaxCode].
template <GgmlType type, int max_code>
struct AffineBlock {
  static constexpr GgmlType kType = type;
  static constexpr int kMaxCode = max_code;
  F16 d;
  F16 m;
  std::array<uint8_t, kBlock> codes{};
  friend bool operator==(const AffineBlock&, const AffineBlock&) = default;
};
using BlockQ4_1 = AffineBlock<GgmlType::kQ4_1, 15>;
using BlockQ5_1 = AffineBlock<GgmlType::kQ5_1, 31>;

// value = code * d. ggml's encoders use [-127, 127]; -128 is legal in a file.
struct BlockQ8_0 {
  static constexpr GgmlType kType = GgmlType::kQ8_0;
  F16 d;
  std::array<int8_t, kBlock> codes{};
  friend bool operator==(const BlockQ8_0&, const BlockQ8_0&) = default;
};

// value = kIq4NlLevels[code] * d (kernels/core/dtype.h).
struct BlockIq4Nl {
  static constexpr GgmlType kType = GgmlType::kIq4Nl;
  static constexpr int kMaxCode = 15;
  F16 d;
  std::array<uint8_t, kBlock> codes{};
  friend bool operator==(const BlockIq4Nl&, const BlockIq4Nl&) = default;
};

// value = kMxfp4Levels[code] * 2^(exponent - 128): the levels are twice those of E2M1, and an
// exponent of 255 is no NaN to ggml.
inline constexpr std::array<int8_t, 16> kMxfp4Levels = {0, 1,  2,  3,  4,  6,  8,  12,
                                                        0, -1, -2, -3, -4, -6, -8, -12};
struct BlockMxfp4 {
  static constexpr GgmlType kType = GgmlType::kMxfp4;
  static constexpr int kMaxCode = 15;
  uint8_t exponent = 0;
  std::array<uint8_t, kBlock> codes{};
  friend bool operator==(const BlockMxfp4&, const BlockMxfp4&) = default;
};

// Sub-block t of 256 / kSubBlocks elements: value = code * (d * scales[t]) - dmin * mins[t]; codes
// in [0, kMaxCode], scales and mins in [0, kMaxScale].
template <GgmlType type, int sub_blocks, int max_code, int max_scale>
struct AffineSuperBlock {
  static constexpr GgmlType kType = type;
  static constexpr int kSubBlocks = sub_blocks;
  static constexpr int kMaxCode = max_code;
  static constexpr int kMaxScale = max_scale;
  F16 d;
  F16 dmin;
  std::array<uint8_t, sub_blocks> scales{};
  std::array<uint8_t, sub_blocks> mins{};
  std::array<uint8_t, kSuperBlock> codes{};
  friend bool operator==(const AffineSuperBlock&, const AffineSuperBlock&) = default;
};
using BlockQ2K = AffineSuperBlock<GgmlType::kQ2K, 16, 3, 15>;
using BlockQ4K = AffineSuperBlock<GgmlType::kQ4K, 8, 15, 63>;
using BlockQ5K = AffineSuperBlock<GgmlType::kQ5K, 8, 31, 63>;

// Sub-block t of 16 elements: value = (d * scales[t]) * (code - kZero); codes in [0, 2 kZero - 1],
// scales in [kMinScale, kMaxScale].
template <GgmlType type, int zero, int min_scale>
struct CenteredSuperBlock {
  static constexpr GgmlType kType = type;
  static constexpr int kSubBlocks = 16;
  static constexpr int kZero = zero;
  static constexpr int kMaxCode = 2 * zero - 1;
  static constexpr int kMinScale = min_scale;
  static constexpr int kMaxScale = -min_scale - 1;
  F16 d;
  std::array<int8_t, kSubBlocks> scales{};
  std::array<uint8_t, kSuperBlock> codes{};
  friend bool operator==(const CenteredSuperBlock&, const CenteredSuperBlock&) = default;
};
using BlockQ3K = CenteredSuperBlock<GgmlType::kQ3K, 4, -32>;
using BlockQ6K = CenteredSuperBlock<GgmlType::kQ6K, 32, -128>;

// `bytes` has exactly block_bytes of the type (Check); no aliasing.
void Pack(const BlockQ4_0& block, std::span<std::byte> bytes);
void Pack(const BlockQ4_1& block, std::span<std::byte> bytes);
void Pack(const BlockQ5_0& block, std::span<std::byte> bytes);
void Pack(const BlockQ5_1& block, std::span<std::byte> bytes);
void Pack(const BlockQ8_0& block, std::span<std::byte> bytes);
void Pack(const BlockIq4Nl& block, std::span<std::byte> bytes);
void Pack(const BlockMxfp4& block, std::span<std::byte> bytes);
void Pack(const BlockQ2K& block, std::span<std::byte> bytes);
void Pack(const BlockQ3K& block, std::span<std::byte> bytes);
void Pack(const BlockQ4K& block, std::span<std::byte> bytes);
void Pack(const BlockQ5K& block, std::span<std::byte> bytes);
void Pack(const BlockQ6K& block, std::span<std::byte> bytes);

void Unpack(std::span<const std::byte> bytes, BlockQ4_0& block);
void Unpack(std::span<const std::byte> bytes, BlockQ4_1& block);
void Unpack(std::span<const std::byte> bytes, BlockQ5_0& block);
void Unpack(std::span<const std::byte> bytes, BlockQ5_1& block);
void Unpack(std::span<const std::byte> bytes, BlockQ8_0& block);
void Unpack(std::span<const std::byte> bytes, BlockIq4Nl& block);
void Unpack(std::span<const std::byte> bytes, BlockMxfp4& block);
void Unpack(std::span<const std::byte> bytes, BlockQ2K& block);
void Unpack(std::span<const std::byte> bytes, BlockQ3K& block);
void Unpack(std::span<const std::byte> bytes, BlockQ4K& block);
void Unpack(std::span<const std::byte> bytes, BlockQ5K& block);
void Unpack(std::span<const std::byte> bytes, BlockQ6K& block);

// Calls visit(Block()) with the block struct of `type`; false, without a call, if it has none.
template <typename Visit>
bool WithBlock(GgmlType type, Visit&& visit) {
  const auto matches = [&](auto block) {
    if (decltype(block)::kType != type) return false;
    visit(block);
    return true;
  };
  return matches(BlockQ4_0()) || matches(BlockQ4_1()) || matches(BlockQ5_0()) ||
         matches(BlockQ5_1()) || matches(BlockQ8_0()) || matches(BlockIq4Nl()) ||
         matches(BlockMxfp4()) || matches(BlockQ2K()) || matches(BlockQ3K()) ||
         matches(BlockQ4K()) || matches(BlockQ5K()) || matches(BlockQ6K());
}

// The values of a block, [block_elements of the type], as ggml computes them: float, in this order.
template <GgmlType type, int zero>
void ValuesOf(const CenteredBlock<type, zero>& block, float* out) {
  const float d = ToFloat(block.d);
  for (size_t i = 0; i < kBlock; ++i) out[i] = static_cast<float>(block.codes[i] - zero) * d;
}
template <GgmlType type, int max_code>
void ValuesOf(const AffineBlock<type, max_code>& block, float* out) {
  const float d = ToFloat(block.d);
  const float m = ToFloat(block.m);
  for (size_t i = 0; i < kBlock; ++i) out[i] = static_cast<float>(block.codes[i]) * d + m;
}
void ValuesOf(const BlockQ8_0& block, float* out);
void ValuesOf(const BlockIq4Nl& block, float* out);
void ValuesOf(const BlockMxfp4& block, float* out);
template <GgmlType type, int sub_blocks, int max_code, int max_scale>
void ValuesOf(const AffineSuperBlock<type, sub_blocks, max_code, max_scale>& block, float* out) {
  constexpr size_t kSize = kSuperBlock / sub_blocks;
  const float d = ToFloat(block.d);
  const float dmin = ToFloat(block.dmin);
  for (size_t t = 0; t < sub_blocks; ++t) {
    const float scale = d * static_cast<float>(block.scales[t]);
    const float min = dmin * static_cast<float>(block.mins[t]);
    for (size_t i = t * kSize; i < (t + 1) * kSize; ++i) {
      out[i] = scale * static_cast<float>(block.codes[i]) - min;
    }
  }
}
template <GgmlType type, int zero, int min_scale>
void ValuesOf(const CenteredSuperBlock<type, zero, min_scale>& block, float* out) {
  constexpr size_t kSize = 16;
  const float d = ToFloat(block.d);
  for (size_t t = 0; t < 16; ++t) {
    const float scale = d * static_cast<float>(block.scales[t]);
    for (size_t i = t * kSize; i < (t + 1) * kSize; ++i) {
      out[i] = scale * static_cast<float>(block.codes[i] - zero);
    }
  }
}

// 2^(exponent - 128), exact down to the subnormal 2^-128.
float Mxfp4Scale(uint8_t exponent);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_BLOCKS_H_
