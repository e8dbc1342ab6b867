// Packing of blocks of 32. Byte table: blocks.h.
#include "formats/gguf/blocks.h"

#include <bit>

#include "formats/gguf/pack.h"

namespace quantmill {
namespace {

constexpr size_t kHalf = kBlock / 2;

// Low four bits of 32 codes <-> 16 bytes.
void PutNibbles(const std::array<uint8_t, kBlock>& codes, std::span<std::byte> bytes) {
  for (size_t j = 0; j < kHalf; ++j) {
    bytes[j] = static_cast<std::byte>((codes[j] & 15) | (codes[j + kHalf] & 15) << 4);
  }
}
void GetNibbles(std::span<const std::byte> bytes, std::array<uint8_t, kBlock>& codes) {
  for (size_t j = 0; j < kHalf; ++j) {
    codes[j] = At(bytes, j) & 15;
    codes[j + kHalf] = static_cast<uint8_t>(At(bytes, j) >> 4);
  }
}

// Fifth bits of 32 codes <-> a 32-bit word, code i in bit i.
void PutFifthBits(const std::array<uint8_t, kBlock>& codes, std::byte* at) {
  uint32_t word = 0;
  for (size_t i = 0; i < kBlock; ++i) word |= static_cast<uint32_t>(codes[i] >> 4) << i;
  std::memcpy(at, &word, sizeof(word));
}
void AddFifthBits(const std::byte* at, std::array<uint8_t, kBlock>& codes) {
  uint32_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  for (size_t i = 0; i < kBlock; ++i) {
    codes[i] = static_cast<uint8_t>(codes[i] | (word >> i & 1) << 4);
  }
}

// d | nibbles.
template <typename Block>
void PackScaled(const Block& block, std::span<std::byte> bytes) {
  CheckSize<Block>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  PutF16(block.d, bytes.data());
  PutNibbles(block.codes, bytes.subspan(2));
}
template <typename Block>
void UnpackScaled(std::span<const std::byte> bytes, Block& block) {
  CheckSize<Block>(bytes);
  block.d = GetF16(bytes.data());
  GetNibbles(bytes.subspan(2), block.codes);
}

}  // namespace

void Pack(const BlockQ4_0& block, std::span<std::byte> bytes) { PackScaled(block, bytes); }
void Unpack(std::span<const std::byte> bytes, BlockQ4_0& block) { UnpackScaled(bytes, block); }

void Pack(const BlockQ4_1& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ4_1>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  PutF16(block.d, bytes.data());
  PutF16(block.m, &bytes[2]);
  PutNibbles(block.codes, bytes.subspan(4));
}
void Unpack(std::span<const std::byte> bytes, BlockQ4_1& block) {
  CheckSize<BlockQ4_1>(bytes);
  block.d = GetF16(bytes.data());
  block.m = GetF16(&bytes[2]);
  GetNibbles(bytes.subspan(4), block.codes);
}

void Pack(const BlockQ5_0& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ5_0>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  PutF16(block.d, bytes.data());
  PutFifthBits(block.codes, &bytes[2]);
  PutNibbles(block.codes, bytes.subspan(6));
}
void Unpack(std::span<const std::byte> bytes, BlockQ5_0& block) {
  CheckSize<BlockQ5_0>(bytes);
  block.d = GetF16(bytes.data());
  GetNibbles(bytes.subspan(6), block.codes);
  AddFifthBits(&bytes[2], block.codes);
}

void Pack(const BlockQ5_1& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ5_1>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  PutF16(block.d, bytes.data());
  PutF16(block.m, &bytes[2]);
  PutFifthBits(block.codes, &bytes[4]);
  PutNibbles(block.codes, bytes.subspan(8));
}
void Unpack(std::span<const std::byte> bytes, BlockQ5_1& block) {
  CheckSize<BlockQ5_1>(bytes);
  block.d = GetF16(bytes.data());
  block.m = GetF16(&bytes[2]);
  GetNibbles(bytes.subspan(8), block.codes);
  AddFifthBits(&bytes[4], block.codes);
}

void Pack(const BlockQ8_0& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ8_0>(bytes);
  PutF16(block.d, bytes.data());
  std::memcpy(&bytes[2], block.codes.data(), kBlock);
}
void Unpack(std::span<const std::byte> bytes, BlockQ8_0& block) {
  CheckSize<BlockQ8_0>(bytes);
  block.d = GetF16(bytes.data());
  std::memcpy(block.codes.data(), &bytes[2], kBlock);
}

void Pack(const BlockIq4Nl& block, std::span<std::byte> bytes) { PackScaled(block, bytes); }
void Unpack(std::span<const std::byte> bytes, BlockIq4Nl& block) { UnpackScaled(bytes, block); }

void Pack(const BlockMxfp4& block, std::span<std::byte> bytes) {
  CheckSize<BlockMxfp4>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  bytes[0] = static_cast<std::byte>(block.exponent);
  PutNibbles(block.codes, bytes.subspan(1));
}
void Unpack(std::span<const std::byte> bytes, BlockMxfp4& block) {
  CheckSize<BlockMxfp4>(bytes);
  block.exponent = At(bytes, 0);
  GetNibbles(bytes.subspan(1), block.codes);
}

void ValuesOf(const BlockQ8_0& block, float* out) {
  const float d = ToFloat(block.d);
  for (size_t i = 0; i < kBlock; ++i) out[i] = static_cast<float>(block.codes[i]) * d;
}

void ValuesOf(const BlockIq4Nl& block, float* out) {
  const float d = ToFloat(block.d);
  for (size_t i = 0; i < kBlock; ++i) {
    out[i] = d * static_cast<float>(kIq4NlLevels[block.codes[i] & 15u]);
  }
}

void ValuesOf(const BlockMxfp4& block, float* out) {
  const float scale = Mxfp4Scale(block.exponent);
  for (size_t i = 0; i < kBlock; ++i) {
    out[i] = static_cast<float>(kMxfp4Levels[block.codes[i] & 15u]) * scale;
  }
}

float Mxfp4Scale(uint8_t exponent) {
  // The two smallest are subnormal: 2^-128 and 2^-127.
  const uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23;
  return std::bit_cast<float>(bits);
}

}  // namespace quantmill
