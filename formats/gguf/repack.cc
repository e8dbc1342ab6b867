#include "formats/gguf/repack.h"

#include <algorithm>

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

void PackBlock(GgmlType type, const int8_t* codes, F16 d, std::span<std::byte> bytes) {
  switch (type) {
    case GgmlType::kQ4_0:
      return PackCentered<BlockQ4_0>(codes, d, bytes);
    case GgmlType::kQ5_0:
      return PackCentered<BlockQ5_0>(codes, d, bytes);
    case GgmlType::kQ8_0: {
      BlockQ8_0 block;
      block.d = d;
      std::copy_n(codes, kBlock, block.codes.begin());
      return Pack(block, bytes);
    }
    default:
      Check(false, "RepackRow: no such type");
  }
}

}  // namespace

GgmlType BlockTypeFor(const QuantizedModule& module) {
  const QuantScheme& scheme = module.scheme;
  if (scheme.code_type != CodeType::kInt) Refuse(module, "its codes are floats");
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
    const F16 d = ToF16(scale);
    if (ToFloat(d) != scale) {
      throw Error(ErrorCode::kUsage, where,
                  "scale " + std::to_string(group) + " of output " + std::to_string(row) + " is " +
                      std::to_string(scale) +
                      ", which the F16 scales of gguf do not hold exactly: this file cannot be "
                      "repacked without loss");
    }
    PackBlock(type, linear.codes.data() + row * linear.in + begin, d,
              bytes.subspan(static_cast<size_t>(begin / kBlock) * block_bytes, block_bytes));
  }
}

}  // namespace quantmill
