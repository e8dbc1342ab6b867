// Packing of super-blocks of 256.
#include "formats/gguf/blocks.h"
#include "formats/gguf/pack.h"

namespace quantmill {
namespace {

// Eight scales and eight mins of 6 bits <-> 12 bytes: the first four of each lie whole in bytes 0-3
// and 4-7; the low nibbles of the others share bytes 8-11, their high pairs of bits top up bytes
// 0-7.
void PutSixBitPairs(const std::array<uint8_t, 8>& scales, const std::array<uint8_t, 8>& mins,
                    std::span<std::byte> bytes) {
  for (size_t t = 0; t < 4; ++t) {
    bytes[t] = static_cast<std::byte>(scales[t] | (scales[t + 4] >> 4) << 6);
    bytes[t + 4] = static_cast<std::byte>(mins[t] | (mins[t + 4] >> 4) << 6);
    bytes[t + 8] = static_cast<std::byte>((scales[t + 4] & 15) | (mins[t + 4] & 15) << 4);
  }
}
void GetSixBitPairs(std::span<const std::byte> bytes, std::array<uint8_t, 8>& scales,
                    std::array<uint8_t, 8>& mins) {
  for (size_t t = 0; t < 4; ++t) {
    const uint8_t shared = At(bytes, t + 8);
    scales[t] = At(bytes, t) & 63;
    mins[t] = At(bytes, t + 4) & 63;
    scales[t + 4] = static_cast<uint8_t>((shared & 15) | (At(bytes, t) >> 6) << 4);
    mins[t + 4] = static_cast<uint8_t>((shared >> 4) | (At(bytes, t + 4) >> 6) << 4);
  }
}

// Low four bits of 256 codes <-> 128 bytes: of 64 codes, i and i + 32 share byte i.
void PutLowNibbles(const std::array<uint8_t, kSuperBlock>& codes, std::span<std::byte> bytes) {
  for (size_t j = 0; j < kSuperBlock / 2; ++j) {
    const size_t first = j / 32 * 64 + j % 32;
    bytes[j] = static_cast<std::byte>((codes[first] & 15) | (codes[first + 32] & 15) << 4);
  }
}
void GetLowNibbles(std::span<const std::byte> bytes, std::array<uint8_t, kSuperBlock>& codes) {
  for (size_t j = 0; j < kSuperBlock / 2; ++j) {
    const size_t first = j / 32 * 64 + j % 32;
    codes[first] = At(bytes, j) & 15;
    codes[first + 32] = static_cast<uint8_t>(At(bytes, j) >> 4);
  }
}

// One bit of 256 codes <-> 32 bytes: code i in bit i / 32 of byte i % 32.
void PutBitPlane(const std::array<uint8_t, kSuperBlock>& codes, int bit,
                 std::span<std::byte> bytes) {
  for (size_t l = 0; l < 32; ++l) {
    unsigned packed = 0;
    for (size_t t = 0; t < 8; ++t) packed |= (codes[32 * t + l] >> bit & 1u) << t;
    bytes[l] = static_cast<std::byte>(packed);
  }
}
void AddBitPlane(std::span<const std::byte> bytes, int bit,
                 std::array<uint8_t, kSuperBlock>& codes) {
  for (size_t i = 0; i < kSuperBlock; ++i) {
    const unsigned set = At(bytes, i % 32) >> (i / 32) & 1u;
    codes[i] = static_cast<uint8_t>(codes[i] | set << bit);
  }
}

// Two bits of 256 codes <-> 64 bytes: of 128 codes, those 32 apart share a byte, the first lowest.
void PutPairs(const std::array<uint8_t, kSuperBlock>& codes, int bit, std::span<std::byte> bytes) {
  for (size_t j = 0; j < kSuperBlock / 4; ++j) {
    const size_t first = j / 32 * 128 + j % 32;
    unsigned packed = 0;
    for (size_t k = 0; k < 4; ++k) packed |= (codes[first + 32 * k] >> bit & 3u) << 2 * k;
    bytes[j] = static_cast<std::byte>(packed);
  }
}
void AddPairs(std::span<const std::byte> bytes, int bit, std::array<uint8_t, kSuperBlock>& codes) {
  for (size_t j = 0; j < kSuperBlock / 4; ++j) {
    const size_t first = j / 32 * 128 + j % 32;
    for (size_t k = 0; k < 4; ++k) {
      const unsigned pair = At(bytes, j) >> 2 * k & 3u;
      codes[first + 32 * k] = static_cast<uint8_t>(codes[first + 32 * k] | pair << bit);
    }
  }
}

// d | dmin | scales and mins (12), and the checks of the whole block.
template <typename Block>
void PutAffineHead(const Block& block, std::span<std::byte> bytes) {
  CheckSize<Block>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  CheckCodes(block.scales, block.kMaxScale);
  CheckCodes(block.mins, block.kMaxScale);
  PutF16(block.d, bytes.data());
  PutF16(block.dmin, &bytes[2]);
  PutSixBitPairs(block.scales, block.mins, bytes.subspan(4));
}
template <typename Block>
void GetAffineHead(std::span<const std::byte> bytes, Block& block) {
  CheckSize<Block>(bytes);
  block.d = GetF16(bytes.data());
  block.dmin = GetF16(&bytes[2]);
  GetSixBitPairs(bytes.subspan(4), block.scales, block.mins);
}

}  // namespace

// scales and mins (nibbles of 16 bytes) | codes (64) | d | dmin.
void Pack(const BlockQ2K& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ2K>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  CheckCodes(block.scales, block.kMaxScale);
  CheckCodes(block.mins, block.kMaxScale);
  for (size_t t = 0; t < 16; ++t) {
    bytes[t] = static_cast<std::byte>(block.scales[t] | block.mins[t] << 4);
  }
  PutPairs(block.codes, 0, bytes.subspan(16));
  PutF16(block.d, &bytes[80]);
  PutF16(block.dmin, &bytes[82]);
}
void Unpack(std::span<const std::byte> bytes, BlockQ2K& block) {
  CheckSize<BlockQ2K>(bytes);
  for (size_t t = 0; t < 16; ++t) {
    block.scales[t] = At(bytes, t) & 15;
    block.mins[t] = static_cast<uint8_t>(At(bytes, t) >> 4);
  }
  block.codes.fill(0);
  AddPairs(bytes.subspan(16), 0, block.codes);
  block.d = GetF16(&bytes[80]);
  block.dmin = GetF16(&bytes[82]);
}

// High bits (32) | low pairs of bits (64) | scales (12) | d. Of scale + 32, the low nibbles of t
// and t + 8 share byte t, the high pairs of bits of t, t + 4, t + 8 and t + 12 share byte 8 + t.
void Pack(const BlockQ3K& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ3K>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  std::array<uint8_t, 16> scales{};
  for (size_t t = 0; t < 16; ++t) scales[t] = static_cast<uint8_t>(block.scales[t] + 32);
  CheckCodes(scales, 63);
  PutBitPlane(block.codes, 2, bytes);
  PutPairs(block.codes, 0, bytes.subspan(32));
  for (size_t t = 0; t < 8; ++t) {
    bytes[96 + t] = static_cast<std::byte>((scales[t] & 15) | (scales[t + 8] & 15) << 4);
  }
  for (size_t t = 0; t < 4; ++t) {
    bytes[104 + t] = static_cast<std::byte>(scales[t] >> 4 | (scales[t + 4] >> 4) << 2 |
                                            (scales[t + 8] >> 4) << 4 | (scales[t + 12] >> 4) << 6);
  }
  PutF16(block.d, &bytes[108]);
}
void Unpack(std::span<const std::byte> bytes, BlockQ3K& block) {
  CheckSize<BlockQ3K>(bytes);
  block.codes.fill(0);
  AddPairs(bytes.subspan(32), 0, block.codes);
  AddBitPlane(bytes, 2, block.codes);
  for (size_t t = 0; t < 16; ++t) {
    const int low = At(bytes, 96 + t % 8) >> (t < 8 ? 0 : 4) & 15;
    const int high = At(bytes, 104 + t % 4) >> (2 * (t / 4)) & 3;
    block.scales[t] = static_cast<int8_t>((low | high << 4) - 32);
  }
  block.d = GetF16(&bytes[108]);
}

// d | dmin | scales and mins (12) | low nibbles (128).
void Pack(const BlockQ4K& block, std::span<std::byte> bytes) {
  PutAffineHead(block, bytes);
  PutLowNibbles(block.codes, bytes.subspan(16));
}
void Unpack(std::span<const std::byte> bytes, BlockQ4K& block) {
  GetAffineHead(bytes, block);
  GetLowNibbles(bytes.subspan(16), block.codes);
}

// d | dmin | scales and mins (12) | fifth bits (32) | low nibbles (128).
void Pack(const BlockQ5K& block, std::span<std::byte> bytes) {
  PutAffineHead(block, bytes);
  PutBitPlane(block.codes, 4, bytes.subspan(16));
  PutLowNibbles(block.codes, bytes.subspan(48));
}
void Unpack(std::span<const std::byte> bytes, BlockQ5K& block) {
  GetAffineHead(bytes, block);
  GetLowNibbles(bytes.subspan(48), block.codes);
  AddBitPlane(bytes.subspan(16), 4, block.codes);
}

// Low nibbles (128; of 128 codes, i and i + 64 share byte i) | high pairs of bits (64) | scales
// (16) | d.
void Pack(const BlockQ6K& block, std::span<std::byte> bytes) {
  CheckSize<BlockQ6K>(bytes);
  CheckCodes(block.codes, block.kMaxCode);
  for (size_t j = 0; j < kSuperBlock / 2; ++j) {
    const size_t first = j / 64 * 128 + j % 64;
    bytes[j] =
        static_cast<std::byte>((block.codes[first] & 15) | (block.codes[first + 64] & 15) << 4);
  }
  PutPairs(block.codes, 4, bytes.subspan(128));
  std::memcpy(&bytes[192], block.scales.data(), block.scales.size());
  PutF16(block.d, &bytes[208]);
}
void Unpack(std::span<const std::byte> bytes, BlockQ6K& block) {
  CheckSize<BlockQ6K>(bytes);
  for (size_t j = 0; j < kSuperBlock / 2; ++j) {
    const size_t first = j / 64 * 128 + j % 64;
    block.codes[first] = At(bytes, j) & 15;
    block.codes[first + 64] = static_cast<uint8_t>(At(bytes, j) >> 4);
  }
  AddPairs(bytes.subspan(128), 4, block.codes);
  std::memcpy(block.scales.data(), &bytes[192], block.scales.size());
  block.d = GetF16(&bytes[208]);
}

}  // namespace quantmill
