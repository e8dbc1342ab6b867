#include <cmath>

#include "formats/gguf/block_grid.h"
#include "formats/gguf/codec.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

constexpr size_t kElements = 512;

struct Row {
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  std::vector<float> offsets;
};

Row Encode(GgmlType type, const std::vector<float>& x) {
  const BlockGrid grid = BlockGridOf(type).value();
  const size_t groups = x.size() / static_cast<size_t>(grid.group);
  Row row{std::vector<std::byte>(RowBytes(type, std::ssize(x)).value()), std::vector<float>(groups),
          std::vector<float>(grid.has_offsets ? groups : 0)};
  EncodeGrid(type, x, {}, row.bytes, row.scales, row.offsets);
  return row;
}

std::vector<float> Decode(GgmlType type, const std::vector<std::byte>& bytes, size_t elements) {
  std::vector<float> values(elements);
  DecodeRow(type, bytes, values);
  return values;
}

std::vector<GgmlType> GridTypes() {
  std::vector<GgmlType> types;
  for (const GgmlType type : BlockTypes()) {
    if (BlockGridOf(type)) types.push_back(type);
  }
  return types;
}

TEST(GgufBlockGrid, EvenLevelsAlone) {
  EXPECT_EQ(GridTypes().size(), BlockTypes().size() - 2);
  EXPECT_FALSE(BlockGridOf(GgmlType::kIq4Nl));
  EXPECT_FALSE(BlockGridOf(GgmlType::kMxfp4));
  EXPECT_FALSE(BlockGridOf(GgmlType::kF16));
  const BlockGrid q6 = BlockGridOf(GgmlType::kQ6K).value();
  EXPECT_EQ(q6.bits, 6);
  EXPECT_EQ(q6.group, 16);
  EXPECT_FALSE(q6.has_offsets);
  const BlockGrid q41 = BlockGridOf(GgmlType::kQ4_1).value();
  EXPECT_EQ(q41.bits, 4);
  EXPECT_EQ(q41.group, 32);
  EXPECT_TRUE(q41.has_offsets);
}

// Any codes, the extreme ones among them, decode to offset + scale * code.
TEST(GgufBlockGrid, CodesDecodeToTheGrid) {
  for (const GgmlType type : GridTypes()) {
    SCOPED_TRACE(NameOf(type));
    Random random(3);
    std::vector<float> x(kElements);
    for (float& value : x) value = static_cast<float>(random.Normal()) * 0.02f + 0.004f;
    Row row = Encode(type, x);
    const BlockGrid grid = BlockGridOf(type).value();
    std::vector<int8_t> codes(kElements);
    for (size_t i = 0; i < kElements; ++i) {
      codes[i] = static_cast<int8_t>(static_cast<int>(i * 7 % (size_t{1} << grid.bits)) -
                                     (1 << (grid.bits - 1)));
    }
    ReplaceCodes(type, codes, row.bytes);
    const std::vector<float> got = Decode(type, row.bytes, kElements);
    for (size_t i = 0; i < kElements; ++i) {
      const size_t g = i / static_cast<size_t>(grid.group);
      const double offset = grid.has_offsets ? static_cast<double>(row.offsets[g]) : 0;
      const double want = offset + static_cast<double>(row.scales[g]) * codes[i];
      // Offset and value are each rounded once, at the size of the range's ends.
      const double size =
          std::fabs(offset) + std::fabs(static_cast<double>(row.scales[g])) * (1 << grid.bits);
      EXPECT_NEAR(static_cast<double>(got[i]), want, size * 0x1p-22) << i;
    }
  }
}

// The codes of the encoder itself, read off the grid, give the encoder's bytes again.
TEST(GgufBlockGrid, SameCodesGiveSameBytes) {
  for (const GgmlType type : GridTypes()) {
    SCOPED_TRACE(NameOf(type));
    Random random(4);
    std::vector<float> x(kElements);
    for (float& value : x) value = static_cast<float>(random.Normal());
    Row row = Encode(type, x);
    std::vector<std::byte> plain(row.bytes.size());
    EncodeRow(type, x, {}, plain);
    EXPECT_EQ(row.bytes, plain);
    const BlockGrid grid = BlockGridOf(type).value();
    const std::vector<float> values = Decode(type, row.bytes, kElements);
    std::vector<int8_t> codes(kElements);
    for (size_t i = 0; i < kElements; ++i) {
      const size_t g = i / static_cast<size_t>(grid.group);
      const float offset = grid.has_offsets ? row.offsets[g] : 0.0f;
      codes[i] = static_cast<int8_t>(std::lround((values[i] - offset) / row.scales[g]));
    }
    ReplaceCodes(type, codes, row.bytes);
    EXPECT_EQ(row.bytes, plain);
  }
}

// A row of zeros and a constant one have no scale of their own: the grid is there all the same.
TEST(GgufBlockGrid, ScalesAreNeverZero) {
  for (const GgmlType type : GridTypes()) {
    SCOPED_TRACE(NameOf(type));
    for (const float value : {0.0f, -0.25f}) {
      const std::vector<float> x(kElements, value);
      const Row row = Encode(type, x);
      for (const float scale : row.scales) EXPECT_NE(scale, 0.0f);
      for (const float got : Decode(type, row.bytes, kElements)) {
        EXPECT_NEAR(got, value, 0.25f / 30) << "an offset of 6 bits, or a code of few";
      }
    }
  }
}

TEST(GgufBlockGridDeath, CodesInRange) {
  const std::vector<float> x(32, 1.0f);
  Row row = Encode(GgmlType::kQ4_0, x);
  std::vector<int8_t> codes(32, 8);
  EXPECT_DEATH(ReplaceCodes(GgmlType::kQ4_0, codes, row.bytes), "out of range");
  codes.resize(64, 0);
  EXPECT_DEATH(ReplaceCodes(GgmlType::kQ4_0, codes, row.bytes), "size of the row");
}

}  // namespace
}  // namespace quantmill::test
