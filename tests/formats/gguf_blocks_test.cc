// Blocks: bytes worked out by hand, exact inverses, values against a plain formula and against
// gguf-py (golden/gguf_blocks.gguf, made by make_gguf_golden.py).
#include <cmath>
#include <cstring>
#include <numeric>

#include "formats/gguf.h"
#include "formats/gguf/blocks.h"
#include "formats/gguf/codec.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

constexpr F16 kOne{0x3C00};
constexpr F16 kHalf{0x3800};
constexpr F16 kMinusTwo{0xC000};

template <typename Block>
std::vector<std::byte> Packed(const Block& block) {
  std::vector<std::byte> bytes(static_cast<size_t>(InfoOf(Block::kType).block_bytes));
  Pack(block, bytes);
  return bytes;
}

template <typename Block>
std::vector<float> Values(const Block& block) {
  std::vector<float> values(static_cast<size_t>(InfoOf(Block::kType).block_elements));
  DecodeRow(Block::kType, Packed(block), values);
  return values;
}

std::vector<std::byte> Slice(const std::vector<std::byte>& bytes, size_t begin, size_t size) {
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + static_cast<std::ptrdiff_t>(size)};
}

TEST(GgufTypes, NamesAndSizes) {
  EXPECT_EQ(AllGgmlTypes().size(), 35u);
  for (const GgmlTypeInfo& info : AllGgmlTypes()) {
    EXPECT_EQ(GgmlTypeFromId(static_cast<uint32_t>(info.type)), info.type);
    EXPECT_EQ(GgmlTypeFromName(info.name), info.type);
    EXPECT_EQ(NameOf(info.type), info.name);
    EXPECT_EQ(RemovedGgmlTypeName(static_cast<uint32_t>(info.type)), "");
  }
  EXPECT_EQ(GgmlTypeFromId(4), std::nullopt);
  EXPECT_EQ(RemovedGgmlTypeName(4), "Q4_2");
  EXPECT_EQ(RemovedGgmlTypeName(33), "Q4_0_8_8");
  EXPECT_EQ(GgmlTypeFromId(1000), std::nullopt);
  EXPECT_EQ(GgmlTypeFromName("Q4_2"), std::nullopt);
  EXPECT_EQ(RowBytes(GgmlType::kQ4K, 512), 288u);
  EXPECT_EQ(RowBytes(GgmlType::kQ4K, 0), 0u);
  EXPECT_EQ(RowBytes(GgmlType::kQ4K, 128), std::nullopt);
  EXPECT_EQ(RowBytes(GgmlType::kI64, INT64_MAX), std::nullopt);
}

// Low nibbles: codes j and j + 16 share byte j.
TEST(GgufBlocks, Q4_0Golden) {
  BlockQ4_0 block{kHalf, {}};
  block.codes = {0, 1, 1, 2,  2,  3,  3,  4,  4,  5,  5,  6,  6,  7,  7,  8,
                 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 15};
  EXPECT_EQ(Packed(block), BytesOfHex({0x00, 0x38, 0x80, 0x91, 0x91, 0xA2, 0xA2, 0xB3, 0xB3, 0xC4,
                                       0xC4, 0xD5, 0xD5, 0xE6, 0xE6, 0xF7, 0xF7, 0xF8}));
  EXPECT_EQ(Values(block)[0], -4.0f);
  EXPECT_EQ(Values(block)[31], 3.5f);
}

TEST(GgufBlocks, Q4_1Golden) {
  BlockQ4_1 block{kHalf, kMinusTwo, {}};
  block.codes[0] = 15;
  block.codes[16] = 1;
  std::vector<std::byte> want = BytesOfHex({0x00, 0x38, 0x00, 0xC0, 0x1F});
  want.resize(20);
  EXPECT_EQ(Packed(block), want);
  EXPECT_EQ(Values(block)[0], 5.5f);
  EXPECT_EQ(Values(block)[16], -1.5f);
  EXPECT_EQ(Values(block)[1], -2.0f);
}

TEST(GgufBlocks, Q5Golden) {
  BlockQ5_0 centered{kOne, {}};
  centered.codes[0] = 31;   // fifth bit: bit 0 of the word
  centered.codes[17] = 18;  // bit 17
  std::vector<std::byte> want = BytesOfHex({0x00, 0x3C, 0x01, 0x00, 0x02, 0x00, 0x0F, 0x20});
  want.resize(22);
  EXPECT_EQ(Packed(centered), want);
  EXPECT_EQ(Values(centered)[0], 15.0f);
  EXPECT_EQ(Values(centered)[17], 2.0f);
  EXPECT_EQ(Values(centered)[1], -16.0f);
  BlockQ5_1 affine{kOne, kHalf, centered.codes};
  want = BytesOfHex({0x00, 0x3C, 0x00, 0x38, 0x01, 0x00, 0x02, 0x00, 0x0F, 0x20});
  want.resize(24);
  EXPECT_EQ(Packed(affine), want);
  EXPECT_EQ(Values(affine)[0], 31.5f);
}

TEST(GgufBlocks, Q8_0Golden) {
  BlockQ8_0 block{kHalf, {}};
  block.codes[0] = -128;
  block.codes[31] = 127;
  const std::vector<std::byte> bytes = Packed(block);
  EXPECT_EQ(Slice(bytes, 0, 4), BytesOfHex({0x00, 0x38, 0x80, 0x00}));
  EXPECT_EQ(bytes.back(), std::byte{0x7F});
  EXPECT_EQ(Values(block)[0], -64.0f);
  EXPECT_EQ(Values(block)[31], 63.5f);
}

TEST(GgufBlocks, TablesGolden) {
  BlockIq4Nl table{kOne, {}};
  table.codes[0] = 15;
  table.codes[16] = 8;
  EXPECT_EQ(Slice(Packed(table), 0, 4), BytesOfHex({0x00, 0x3C, 0x8F, 0x00}));
  EXPECT_EQ(Values(table)[0], 113.0f);
  EXPECT_EQ(Values(table)[16], 1.0f);
  EXPECT_EQ(Values(table)[1], -127.0f);
  BlockMxfp4 scaled{128, {}};  // 2^0 of the doubled levels
  scaled.codes[0] = 7;
  scaled.codes[1] = 15;
  scaled.codes[16] = 1;
  EXPECT_EQ(Slice(Packed(scaled), 0, 3), BytesOfHex({0x80, 0x17, 0x0F}));
  EXPECT_EQ(Values(scaled)[0], 12.0f);
  EXPECT_EQ(Values(scaled)[1], -12.0f);
  EXPECT_EQ(Values(scaled)[16], 1.0f);
}

TEST(GgufBlocks, Mxfp4ScaleIsExact) {
  for (int exponent = 0; exponent < 256; ++exponent) {
    EXPECT_EQ(Mxfp4Scale(static_cast<uint8_t>(exponent)), std::ldexp(1.0f, exponent - 128));
  }
}

TEST(GgufBlocks, SixBitPairsGolden) {
  BlockQ4K block;
  block.d = kOne;
  block.dmin = kHalf;
  block.scales = {1, 2, 3, 4, 33, 18, 63, 16};
  block.mins = {5, 6, 7, 8, 48, 15, 31, 62};
  block.codes[0] = 1;
  block.codes[32] = 2;
  block.codes[64] = 3;
  block.codes[255] = 15;
  const std::vector<std::byte> bytes = Packed(block);
  EXPECT_EQ(Slice(bytes, 0, 17), BytesOfHex({0x00, 0x3C, 0x00, 0x38, 0x81, 0x42, 0xC3, 0x44, 0xC5,
                                             0x06, 0x47, 0xC8, 0x01, 0xF2, 0xFF, 0xE0, 0x21}));
  EXPECT_EQ(bytes[16 + 32], std::byte{0x03});
  EXPECT_EQ(bytes[143], std::byte{0xF0});
  EXPECT_EQ(Values(block)[0], 1.0f - 2.5f);
  EXPECT_EQ(Values(block)[255], 16.0f * 15 - 31);
}

TEST(GgufBlocks, Q5KGolden) {
  BlockQ5K block;
  block.d = kOne;
  block.scales.fill(1);
  block.codes[3] = 16;       // sub-block 0: bit 0 of qh[3]
  block.codes[7 * 32] = 31;  // sub-block 7: bit 7 of qh[0]
  const std::vector<std::byte> bytes = Packed(block);
  EXPECT_EQ(Slice(bytes, 16, 4), BytesOfHex({0x80, 0x00, 0x00, 0x01}));
  EXPECT_EQ(bytes[48 + 96], std::byte{0xF0});
  EXPECT_EQ(Values(block)[7 * 32], 31.0f);
}

TEST(GgufBlocks, Q6KGolden) {
  BlockQ6K block;
  block.d = kHalf;
  block.scales.fill(1);
  block.scales[15] = -128;
  block.codes.fill(32);
  block.codes[0] = 0x15;   // ql[0] low, pair 0 of qh[0]
  block.codes[64] = 0x3A;  // ql[0] high, pair 2 of qh[0]
  block.codes[255] = 33;   // ql[127] high, pair 3 of qh[63]
  const std::vector<std::byte> bytes = Packed(block);
  EXPECT_EQ(bytes[0], std::byte{0xA5});
  EXPECT_EQ(bytes[127], std::byte{0x10});
  EXPECT_EQ(bytes[128], std::byte{0b10'11'10'01});
  EXPECT_EQ(bytes[207], std::byte{0x80});
  EXPECT_EQ(Slice(bytes, 208, 2), BytesOfHex({0x00, 0x38}));
  EXPECT_EQ(Values(block)[0], 0.5f * (0x15 - 32));
  EXPECT_EQ(Values(block)[64], 0.5f * (0x3A - 32));
  EXPECT_EQ(Values(block)[255], -64.0f);
}

TEST(GgufBlocks, Q2KAndQ3KGolden) {
  BlockQ2K two;
  two.d = kOne;
  two.dmin = kHalf;
  two.scales[0] = 5;
  two.mins[0] = 10;
  two.codes[0] = 3;
  two.codes[32] = 1;
  EXPECT_EQ(Packed(two)[0], std::byte{0xA5});
  EXPECT_EQ(Packed(two)[16], std::byte{0b0111});
  EXPECT_EQ(Values(two)[0], 10.0f);
  EXPECT_EQ(Values(two)[1], -5.0f);
  BlockQ3K three;
  three.d = kOne;
  three.scales.fill(-32);
  three.scales[0] = 31;
  three.scales[12] = 1;
  three.codes[0] = 7;
  const std::vector<std::byte> bytes = Packed(three);
  EXPECT_EQ(bytes[0], std::byte{1});       // the high bit
  EXPECT_EQ(bytes[32], std::byte{3});      // the low pair
  EXPECT_EQ(bytes[96], std::byte{0x0F});   // low nibbles of scales 0 and 8
  EXPECT_EQ(bytes[100], std::byte{0x10});  // of 4 and 12
  EXPECT_EQ(bytes[104], std::byte{0x83});  // high pairs of 0, 4, 8, 12
  EXPECT_EQ(Values(three)[0], 31.0f * 3);
  EXPECT_EQ(Values(three)[16], -32.0f * -4);
}

TEST(GgufBlocks, PackAndUnpackAreInverse) {
  Random random(5);
  for (const GgmlType type : BlockTypes()) {
    for (int i = 0; i < 200; ++i) {
      const auto bytes = RandomBytes(static_cast<size_t>(InfoOf(type).block_bytes), random);
      const bool known = WithBlock(type, [&](auto block) {
        Unpack(bytes, block);
        EXPECT_EQ(Packed(block), bytes) << NameOf(type);
        auto again = decltype(block)();
        again.codes.fill(1);  // what an earlier block left must not shine through
        Unpack(Packed(block), again);
        EXPECT_TRUE(again == block) << NameOf(type);
      });
      EXPECT_TRUE(known);
    }
  }
}

TEST(GgufBlocksDeathTest, FieldsOutOfRange) {
  BlockQ4_0 code;
  code.codes[31] = 16;
  EXPECT_DEATH(Packed(code), "out of range");
  BlockQ4K scale;
  scale.scales[7] = 64;
  EXPECT_DEATH(Packed(scale), "out of range");
  BlockQ3K low;
  low.scales[0] = -33;
  EXPECT_DEATH(Packed(low), "out of range");
  std::vector<std::byte> bytes(17);
  EXPECT_DEATH(Pack(BlockQ4_0(), bytes), "wrong size");
}

// Values by the formulas of the format, in double.
template <typename Block>
double Oracle(const Block& block, size_t i) {
  if constexpr (requires { block.dmin; }) {
    const size_t t = i / (kSuperBlock / Block::kSubBlocks);
    return double{ToFloat(block.d)} * block.scales[t] * block.codes[i] -
           double{ToFloat(block.dmin)} * block.mins[t];
  } else if constexpr (requires { block.scales; }) {
    return double{ToFloat(block.d)} * block.scales[i / 16] * (block.codes[i] - Block::kZero);
  } else if constexpr (requires { block.m; }) {
    return double{ToFloat(block.d)} * block.codes[i] + double{ToFloat(block.m)};
  } else if constexpr (requires { Block::kZero; }) {
    return double{ToFloat(block.d)} * (block.codes[i] - Block::kZero);
  } else if constexpr (requires { block.exponent; }) {
    return std::ldexp(kMxfp4Levels[block.codes[i]], block.exponent - 128);
  } else if constexpr (std::is_same_v<Block, BlockIq4Nl>) {
    return double{ToFloat(block.d)} * kIq4NlLevels[block.codes[i]];
  } else {
    return double{ToFloat(block.d)} * block.codes[i];
  }
}

// All products are exact in float, so one rounding is left: that of the sum.
TEST(GgufBlocks, ValuesEqualTheFormula) {
  Random random(6);
  for (const GgmlType type : BlockTypes()) {
    for (int i = 0; i < 50; ++i) {
      const auto bytes = RandomBytes(static_cast<size_t>(InfoOf(type).block_bytes), random);
      WithBlock(type, [&](auto block) {
        Unpack(bytes, block);
        const std::vector<float> values = Values(block);
        for (size_t e = 0; e < values.size(); ++e) {
          const auto want = static_cast<float>(Oracle(block, e));
          if (std::isnan(want)) continue;  // infinite scales
          EXPECT_EQ(values[e], want) << NameOf(type) << " " << e;
        }
      });
    }
  }
}

TEST(GgufBlocks, ValuesEqualThoseOfGgufPy) {
  const GgufFile file = GgufFile::Open("tests/formats/golden/gguf_blocks.gguf");
  int compared = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.starts_with("values.")) continue;
    SCOPED_TRACE(tensor.name);
    EXPECT_EQ(NameOf(tensor.type), tensor.name);
    ASSERT_TRUE(HasCodec(tensor.type));
    const GgufTensor* wanted = file.Find("values." + tensor.name);
    ASSERT_NE(wanted, nullptr);
    std::vector<float> got(static_cast<size_t>(tensor.elements()));
    DecodeRow(tensor.type, file.Bytes(tensor), got);
    ASSERT_EQ(wanted->bytes, got.size() * sizeof(float));
    EXPECT_EQ(std::memcmp(got.data(), file.Bytes(*wanted).data(), wanted->bytes), 0);
    ++compared;
  }
  EXPECT_EQ(compared, 15);
}

TEST(GgufCodecDeathTest, CallersErrors) {
  std::vector<std::byte> bytes(18);
  std::vector<float> row(31);
  EXPECT_DEATH(DecodeRow(GgmlType::kQ4_0, bytes, row), "whole blocks");
  row.resize(64);
  EXPECT_DEATH(DecodeRow(GgmlType::kQ4_0, bytes, row), "wrong number of bytes");
  row.resize(32);
  bytes.resize(36);
  EXPECT_DEATH(DecodeRow(GgmlType::kQ8_1, bytes, row), "not decoded");
  EXPECT_FALSE(HasCodec(GgmlType::kQ8_1));
  EXPECT_FALSE(HasCodec(GgmlType::kI32));
}

}  // namespace
}  // namespace quantmill::test
