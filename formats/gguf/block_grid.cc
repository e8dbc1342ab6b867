#include "formats/gguf/block_grid.h"

#include <algorithm>
#include <cmath>

#include "formats/gguf/blocks.h"
#include "formats/gguf/codec.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr F16 kSmallestF16{1};

int BitsOf(int max_code) { return std::ilogb(max_code + 1); }

// What is added to a signed code of codes up to `max_code`.
constexpr int HalfOf(int max_code) { return (max_code + 1) / 2; }

// Each shape of block: its grid, a scale that is never 0, and how codes are stored.

template <GgmlType type, int zero>
BlockGrid GridOf(const CenteredBlock<type, zero>&) {
  return {BitsOf(2 * zero - 1), kBlock, false};
}
template <GgmlType type, int zero>
void Tell(CenteredBlock<type, zero>& block, float* scales, float*) {
  if (ToFloat(block.d) == 0.0f) block.d = kSmallestF16;
  scales[0] = ToFloat(block.d);
}
template <GgmlType type, int zero>
void Put(CenteredBlock<type, zero>& block, size_t i, int code) {
  block.codes[i] = static_cast<uint8_t>(code + zero);
}

template <GgmlType type, int max_code>
BlockGrid GridOf(const AffineBlock<type, max_code>&) {
  return {BitsOf(max_code), kBlock, true};
}
template <GgmlType type, int max_code>
void Tell(AffineBlock<type, max_code>& block, float* scales, float* offsets) {
  if (ToFloat(block.d) == 0.0f) block.d = kSmallestF16;
  scales[0] = ToFloat(block.d);
  offsets[0] = ToFloat(block.m) + scales[0] * HalfOf(max_code);
}
template <GgmlType type, int max_code>
void Put(AffineBlock<type, max_code>& block, size_t i, int code) {
  block.codes[i] = static_cast<uint8_t>(code + HalfOf(max_code));
}

BlockGrid GridOf(const BlockQ8_0&) { return {8, kBlock, false}; }
void Tell(BlockQ8_0& block, float* scales, float*) {
  if (ToFloat(block.d) == 0.0f) block.d = kSmallestF16;
  scales[0] = ToFloat(block.d);
}
void Put(BlockQ8_0& block, size_t i, int code) { block.codes[i] = static_cast<int8_t>(code); }

// d and the multiples of a super-block, none of them 0.
template <typename Block>
float RequireScales(Block& block) {
  if (ToFloat(block.d) == 0.0f) {
    block.d = kSmallestF16;
    std::ranges::fill(block.scales, 1);
  }
  for (auto& scale : block.scales) {
    if (scale == 0) scale = 1;
  }
  return ToFloat(block.d);
}

template <GgmlType type, int sub_blocks, int max_code, int max_scale>
using Affine = AffineSuperBlock<type, sub_blocks, max_code, max_scale>;

template <GgmlType type, int sub_blocks, int max_code, int max_scale>
BlockGrid GridOf(const Affine<type, sub_blocks, max_code, max_scale>&) {
  return {BitsOf(max_code), kSuperBlock / sub_blocks, true};
}
template <GgmlType type, int sub_blocks, int max_code, int max_scale>
void Tell(Affine<type, sub_blocks, max_code, max_scale>& block, float* scales, float* offsets) {
  const float d = RequireScales(block);
  const float dmin = ToFloat(block.dmin);
  for (size_t t = 0; t < sub_blocks; ++t) {
    scales[t] = d * static_cast<float>(block.scales[t]);
    offsets[t] = scales[t] * HalfOf(max_code) - dmin * static_cast<float>(block.mins[t]);
  }
}
template <GgmlType type, int sub_blocks, int max_code, int max_scale>
void Put(Affine<type, sub_blocks, max_code, max_scale>& block, size_t i, int code) {
  block.codes[i] = static_cast<uint8_t>(code + HalfOf(max_code));
}

template <GgmlType type, int zero, int min_scale>
BlockGrid GridOf(const CenteredSuperBlock<type, zero, min_scale>&) {
  return {BitsOf(2 * zero - 1), 16, false};
}
template <GgmlType type, int zero, int min_scale>
void Tell(CenteredSuperBlock<type, zero, min_scale>& block, float* scales, float*) {
  const float d = RequireScales(block);
  for (size_t t = 0; t < block.scales.size(); ++t) {
    scales[t] = d * static_cast<float>(block.scales[t]);
  }
}
template <GgmlType type, int zero, int min_scale>
void Put(CenteredSuperBlock<type, zero, min_scale>& block, size_t i, int code) {
  block.codes[i] = static_cast<uint8_t>(code + zero);
}

// Calls visit with a block of `type` that has a grid; false if it has none.
template <typename Visit>
bool WithGrid(GgmlType type, Visit&& visit) {
  bool found = false;
  WithBlock(type, [&](auto block) {
    if constexpr (requires { GridOf(block); }) {
      visit(block);
      found = true;
    }
  });
  return found;
}

}  // namespace

std::optional<BlockGrid> BlockGridOf(GgmlType type) {
  std::optional<BlockGrid> grid;
  WithGrid(type, [&](const auto& block) { grid = GridOf(block); });
  return grid;
}

void EncodeGrid(GgmlType type, std::span<const float> x, std::span<const float> importance,
                std::span<std::byte> bytes, std::span<float> scales, std::span<float> offsets) {
  EncodeRow(type, x, importance, bytes);
  const bool known = WithGrid(type, [&](auto block) {
    const BlockGrid grid = GridOf(block);
    const auto group = static_cast<size_t>(grid.group);
    Check(scales.size() * group == x.size(), "EncodeGrid: one scale for each group");
    Check(offsets.size() == (grid.has_offsets ? scales.size() : 0), "EncodeGrid: offsets");
    const size_t packed = bytes.size() * block.codes.size() / x.size();
    for (size_t b = 0; b * packed < bytes.size(); ++b) {
      const size_t first = b * block.codes.size() / group;
      Unpack(bytes.subspan(b * packed, packed), block);
      Tell(block, &scales[first], grid.has_offsets ? &offsets[first] : nullptr);
      Pack(block, bytes.subspan(b * packed, packed));
    }
  });
  Check(known, "EncodeGrid: a type without a grid");
}

void ReplaceCodes(GgmlType type, std::span<const int8_t> codes, std::span<std::byte> bytes) {
  const bool known = WithGrid(type, [&](auto block) {
    const size_t count = block.codes.size();
    const size_t packed = bytes.size() * count / codes.size();
    Check(RowBytes(type, std::ssize(codes)) == bytes.size(), "ReplaceCodes: size of the row");
    for (size_t b = 0; b * packed < bytes.size(); ++b) {
      Unpack(bytes.subspan(b * packed, packed), block);
      for (size_t i = 0; i < count; ++i) Put(block, i, codes[b * count + i]);
      Pack(block, bytes.subspan(b * packed, packed));
    }
  });
  Check(known, "ReplaceCodes: a type without a grid");
}

}  // namespace quantmill
