// Pieces that the packing of blocks and of super-blocks share. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_PACK_H_
#define QUANTMILL_FORMATS_GGUF_PACK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "formats/gguf/blocks.h"
#include "kernels/core/error.h"

namespace quantmill {

template <typename Block>
void CheckSize(std::span<const std::byte> bytes) {
  Check(static_cast<int64_t>(bytes.size()) == InfoOf(Block::kType).block_bytes,
        "wrong size of a packed block");
}

template <typename Codes>
void CheckCodes(const Codes& codes, int max_code) {
  const bool fit =
      std::all_of(codes.begin(), codes.end(), [&](uint8_t code) { return code <= max_code; });
  Check(fit, "a code of a block is out of range");
}

inline void PutF16(F16 value, std::byte* at) { std::memcpy(at, &value.bits, sizeof(value.bits)); }
inline F16 GetF16(const std::byte* at) {
  F16 value;
  std::memcpy(&value.bits, at, sizeof(value.bits));
  return value;
}

inline uint8_t At(std::span<const std::byte> bytes, size_t i) {
  return std::to_integer<uint8_t>(bytes[i]);
}

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_PACK_H_
