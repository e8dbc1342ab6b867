#include "formats/gguf/repack.h"

#include <algorithm>
#include <cmath>

#include "formats/gguf/blocks.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

[[noreturn]] void Refuse(const QuantizedModule& module, const std::string& why) {
  throw Error(ErrorCode::kUsage, module.name,
              "gguf cannot hold " + Describe(module.scheme) + ": " + why);
}

// Codes are centered on zero: kZero of the block is added to them.
template <typename Block>
void PackCentered(const int8_t* codes, F16 d, std::span<std::byte> bytes) {
  Block block;
  block.d = d;
  for (size_t j = 0; j < kBlock; ++j) {
    block.codes[j] = static_cast<uint8_t>(codes[j] + Block::kZero);
  }
  Pack(block, bytes);
}

// Of codes that blocks have as they are.
template <typename Block>
void PackPlain(const int8_t* codes, F16 d, std::span<std::byte> bytes) {
  Block block;
  block.d = d;
  std::copy_n(codes, kBlock, block.codes.begin());
  Pack(block, bytes);
}

// Both count E2M1 numbers alike; the scale is 2^(exponent - 127), kMxfp4Levels being twice them.
bool PackMxfp4(const int8_t* codes, float scale, std::span<std::byte> bytes) {
  constexpr int kBias = 127;
  const int exponent = scale > 0 && std::isfinite(scale) ? std::ilogb(scale) : kBias + 1;
  if (exponent > kBias || std::ldexp(1.0f, exponent) != scale) return false;
  BlockMxfp4 block;
  block.exponent = static_cast<uint8_t>(exponent + kBias);
  for (size_t j = 0; j < kBlock; ++j) block.codes[j] = static_cast<uint8_t>(codes[j]) & 0xFu;
  Pack(block, bytes);
  return true;
}

void PackBlock(GgmlType type, const int8_t* codes, F16 d, std::span<std::byte> bytes) {
  switch (type) {
    case GgmlType::kQ4_0:
      return PackCentered<BlockQ4_0>(codes, d, bytes);
    case GgmlType::kQ5_0:
      return PackCentered<BlockQ5_0>(codes, d, bytes);
    case GgmlType::kQ8_0:
      return PackPlain<BlockQ8_0>(codes, d, bytes);
    case GgmlType::kIq4Nl:
      return PackPlain<BlockIq4Nl>(codes, d, bytes);
    default:
      Check(false, "RepackRow: no such type");
  }
}

// False where the block does not hold the scale exactly.
bool PackScaled(GgmlType type, const int8_t* codes, float scale, std::span<std::byte> bytes) {
  if (type == GgmlType::kMxfp4) return PackMxfp4(codes, scale, bytes);
  const F16 d = ToF16(scale);
  if (ToFloat(d) != scale) return false;
  PackBlock(type, codes, d, bytes);
  return true;
}

}  // namespace

GgmlType BlockTypeFor(const QuantizedModule& module) {
  const QuantScheme& scheme = module.scheme;
  const bool mxfp4 = scheme.code_type == CodeType::kFp4 && scheme.scale_dtype == DType::kF8E8M0;
  const bool iq4_nl = scheme.code_type == CodeType::kIq4Nl;
  if (scheme.code_type != CodeType::kInt && !mxfp4 && !iq4_nl) {
    Refuse(module, "its codes are floats, of which blocks hold E2M1 times powers of two alone");
  }
  if (!scheme.symmetric) {
    Refuse(module, "it has zero points, and no block type multiplies them exactly");
  }
  if (scheme.input.type != InputScheme::Type::kNone) {
    Refuse(module, "it rounds its inputs, which the file does not speak of");
  }
  const int64_t group = scheme.GroupSizeFor(module.in);
  if (group % kBlock != 0 || module.in % kBlock != 0) {
    Refuse(module, "groups must consist of blocks of 32 inputs");
  }
  if (mxfp4) return GgmlType::kMxfp4;
  if (iq4_nl) return GgmlType::kIq4Nl;
  if (scheme.bits <= 4) return GgmlType::kQ4_0;
  return scheme.bits == 5 ? GgmlType::kQ5_0 : GgmlType::kQ8_0;
}

void RepackRow(const QuantizedLinear& linear, int64_t row, GgmlType type, const std::string& where,
               std::span<std::byte> bytes) {
  const auto block_bytes = static_cast<size_t>(InfoOf(type).block_bytes);
  const int64_t group_size = linear.scheme.GroupSizeFor(linear.in);
  Check(bytes.size() * kBlock == static_cast<size_t>(linear.in) * block_bytes, "RepackRow: size");
  for (int64_t begin = 0; begin < linear.in; begin += kBlock) {
    const int64_t group = begin / group_size;
    const float scale = linear.EffectiveScale(row, group);
    const bool exact =
        PackScaled(type, linear.codes.data() + row * linear.in + begin, scale,
                   bytes.subspan(static_cast<size_t>(begin / kBlock) * block_bytes, block_bytes));
    if (exact) continue;
    throw Error(ErrorCode::kUsage, where,
                "scale " + std::to_string(group) + " of output " + std::to_string(row) + " is " +
                    std::to_string(scale) + ", which the scales of " + std::string(NameOf(type)) +
                    " do not hold exactly: this file cannot be repacked without loss");
  }
}

}  // namespace quantmill
