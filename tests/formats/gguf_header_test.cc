// The reader: golden bytes, every check of the format, every truncation, every mutated byte.
#include <set>

#include "formats/gguf.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

GgufHeader Parse(std::string_view bytes) {
  // A fresh heap block of the exact size, so that a sanitizer sees a read past the end.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  return ParseGgufHeader(std::as_bytes(std::span(copy)), copy.size(), "file.gguf");
}

void ExpectBad(std::string_view bytes, std::vector<std::string> parts) {
  parts.insert(parts.end(), {"file.gguf", "byte offset"});
  ExpectError(ErrorCode::kBadInput, parts, [&] { Parse(bytes); });
}

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;

std::string Entry(std::string_view key, uint32_t type, std::string_view value) {
  return GgufText(key) + Raw(type) + std::string(value);
}

// Two tensors and some metadata; 64 bytes of data and no padding after the last tensor.
std::string Good() {
  std::string file = GgufHead(2, 3);
  file += Entry("name", 8, GgufText("x\xFFy"));
  file += Entry("small", 1, Raw<int8_t>(-3));
  file += Entry("list", 9, Raw<uint32_t>(8) + Raw<uint64_t>(2) + GgufText("ab") + GgufText(""));
  file += GgufInfo("q", {32, 1}, kQ4_0, 0);
  file += GgufInfo("v", {4, 2}, kF32, 32);
  return Padded(file) + Padded(std::string(18, 'q')) + std::string(32, 'v');
}

// One entry with this type and value, and no tensors.
std::string OneEntry(uint32_t type, std::string_view value) {
  return GgufHead(0, 1) + Entry("key", type, value);
}
// One tensor with this info, and `data`.
std::string OneTensor(std::string_view info, std::string_view data = "") {
  return Padded(GgufHead(1, 0) + std::string(info)) + std::string(data);
}

TEST(GgufHeader, Parses) {
  const GgufHeader header = Parse(Good());
  EXPECT_EQ(*header.metadata.Text("name"), "x\xFFy");
  EXPECT_THAT(*header.metadata.Array<std::string>("list"), ElementsAre("ab", ""));
  ASSERT_EQ(header.metadata.entries().size(), 3u);
  EXPECT_EQ(header.metadata.entries()[1].key, "small");
  EXPECT_EQ(std::get<int8_t>(header.metadata.entries()[1].value), -3);
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "q");
  EXPECT_EQ(header.tensors[0].type, GgmlType::kQ4_0);
  EXPECT_THAT(header.tensors[0].shape, ElementsAre(1, 32));
  EXPECT_EQ(header.tensors[0].offset, header.data_offset);
  EXPECT_EQ(header.tensors[0].bytes, 18u);
  EXPECT_THAT(header.tensors[1].shape, ElementsAre(2, 4));
  EXPECT_EQ(header.tensors[1].cols(), 4);
  EXPECT_EQ(header.tensors[1].elements(), 8);
  EXPECT_EQ(header.tensors[1].offset, header.data_offset + 32);
  EXPECT_EQ(header.tensors[1].end(), Good().size());
  EXPECT_EQ(header.alignment, 32u);
}

TEST(GgufHeader, EmptyFile) {
  const GgufHeader header = Parse(GgufHead(0, 0));
  EXPECT_TRUE(header.tensors.empty());
  EXPECT_TRUE(header.metadata.entries().empty());
}

// Types of all entries, as gguf-py writes them (make_gguf_golden.py).
TEST(GgufHeader, ReadsWhatGgufPyWrites) {
  const GgufFile file = GgufFile::Open("tests/formats/golden/gguf_blocks.gguf");
  const GgufMetadata& metadata = file.metadata();
  EXPECT_EQ(*metadata.Text("general.architecture"), "test");
  EXPECT_EQ(metadata.Unsigned("u8"), 200u);
  EXPECT_EQ(metadata.Unsigned("u16"), 60000u);
  EXPECT_EQ(metadata.Unsigned("u32"), 4000000000u);
  EXPECT_EQ(metadata.Unsigned("u64"), (uint64_t{1} << 63) + 1);
  EXPECT_EQ(std::get<int8_t>(*metadata.Find("i8")), -100);
  EXPECT_EQ(std::get<int16_t>(*metadata.Find("i16")), -30000);
  EXPECT_EQ(std::get<int32_t>(*metadata.Find("i32")), -2000000000);
  EXPECT_EQ(std::get<int64_t>(*metadata.Find("i64")), -(int64_t{1} << 62));
  EXPECT_EQ(metadata.Real("f32"), 0.25);
  EXPECT_EQ(metadata.Real("f64"), 1e300);
  EXPECT_EQ(metadata.Bool("bool"), true);
  EXPECT_EQ(*metadata.Text("string"), "\u00e9t\u00e9");
  EXPECT_THAT(*metadata.Array<std::string>("strings"), ElementsAre("a", "bc", ""));
  EXPECT_THAT(*metadata.Array<int32_t>("ints"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*metadata.Array<float>("floats"), ElementsAre(0.5f, -1.5f));
  EXPECT_THAT(*metadata.Array<bool>("bools"), ElementsAre(true, false));
  EXPECT_EQ(file.Find("nothing"), nullptr);
  EXPECT_EQ(file.Find("Q4_K")->type, GgmlType::kQ4K);
}

TEST(GgufMetadata, GettersNameWhatIsWrong) {
  const GgufMetadata metadata({{"text", std::string("x")},
                               {"negative", int32_t{-5}},
                               {"list", GgufArray(std::vector<float>{1})}},
                              "file.gguf");
  EXPECT_EQ(metadata.Unsigned("none"), std::nullopt);
  EXPECT_EQ(metadata.Text("none"), nullptr);
  EXPECT_EQ(metadata.Array<float>("none"), nullptr);
  const auto bad = [&](std::vector<std::string> parts, auto&& get) {
    parts.emplace_back("file.gguf");
    ExpectError(ErrorCode::kBadInput, parts, get);
  };
  bad({"'text' is of type STRING", "integer"}, [&] { metadata.Unsigned("text"); });
  bad({"'negative' is of type I32 (-5)", "0 or more"}, [&] { metadata.Unsigned("negative"); });
  bad({"'list' is of type ARRAY of F32", "array of STRING"},
      [&] { metadata.Array<std::string>("list"); });
  bad({"'text'", "array of I32"}, [&] { metadata.Array<int32_t>("text"); });
  bad({"'negative'", "STRING"}, [&] { metadata.Text("negative"); });
  bad({"'negative'", "BOOL"}, [&] { metadata.Bool("negative"); });
  bad({"'negative'", "floating"}, [&] { metadata.Real("negative"); });
  bad({"'none' is missing", "a name"}, [&] { metadata.Fail("none", "a name"); });
}

TEST(GgufHeader, EveryTruncationIsAnError) {
  const std::string good = Good();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(Parse(good.substr(0, size)), Error) << size;
  }
  ExpectBad(good.substr(0, good.size() - 1), {"tensor 'v'", "ends 1 bytes before", "cut short"});
}

TEST(GgufHeader, PaddingOfTheLastTensorMayBeMissing) {
  const std::string info = GgufInfo("t", {32}, kQ4_0, 0);
  for (const size_t size : {18u, 19u, 31u, 32u}) Parse(OneTensor(info, std::string(size, 'd')));
  ExpectBad(OneTensor(info, std::string(17, 'd')), {"'t'", "1 bytes before the end"});
  ExpectBad(OneTensor(info, std::string(33, 'd')), {"1 bytes follow the last tensor"});
}

TEST(GgufHeader, EveryMutatedByteIsAnErrorOrParses) {
  const std::string good = Good();
  for (size_t i = 0; i < good.size() - 64; ++i) {
    std::set<char> values = {0, 1, '\x7F', '\xFF', '\x80'};
    for (int bit = 0; bit < 8; ++bit) values.insert(static_cast<char>(good[i] ^ (1 << bit)));
    for (const char value : values) {
      std::string bad = good;
      bad[i] = value;
      try {
        Parse(bad);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kBadInput);
        EXPECT_THAT(error.what(), HasSubstr("byte offset"));
      }
    }
  }
}

TEST(GgufHeader, Versions) {
  ExpectBad("", {"cut short"});
  ExpectBad("GG", {"cut short"});
  ExpectBad("PK\x03\x04 a zip", {"does not begin with 'GGUF'", "byte offset 0"});
  ExpectBad("tjgg\x03\0\0\0", {"GGJT", "before GGUF"});
  ExpectBad(GgufHead(0, 0, 1), {"version 1", "convert the original", "byte offset 4"});
  ExpectBad(GgufHead(0, 0, 2), {"version 2", "only version 3"});
  ExpectBad(GgufHead(0, 0, 4), {"version 4", "only version 3"});
  ExpectBad(GgufHead(0, 0, 0x03000000), {"big-endian"});
}

TEST(GgufHeader, CountsAreCheckedBeforeAllocation) {
  ExpectBad(GgufHead(0, UINT64_MAX), {"metadata entries", "18446744073709551615 cannot fit"});
  ExpectBad(GgufHead(UINT64_MAX / 25, 0), {"tensors", "cannot fit"});
  ExpectBad(GgufHead(0, 1) + Raw(UINT64_MAX) + std::string(40, 'k'), {"metadata key", "cut short"});
  ExpectBad(OneEntry(8, Raw(UINT64_MAX)), {"'key'", "needs 18446744073709551615 bytes"});
  for (const uint32_t type : {0u, 5u, 8u, 12u}) {
    ExpectBad(OneEntry(9, Raw(type) + Raw(UINT64_MAX)), {"'key'", "at most"});
    ExpectBad(OneEntry(9, Raw(type) + Raw(kMaxGgufArray)), {"'key'", "cannot fit"});
  }
}

TEST(GgufHeader, Metadata) {
  ExpectBad(OneEntry(13, "x"), {"'key' has the unknown type 13"});
  ExpectBad(OneEntry(7, "\x02"), {"'key' is a BOOL of value 2"});
  ExpectBad(OneEntry(9, Raw<uint32_t>(9) + Raw<uint64_t>(0)), {"'key'", "array of arrays"});
  ExpectBad(OneEntry(9, Raw<uint32_t>(7) + Raw<uint64_t>(1) + "\x03"), {"'key'", "BOOL"});
  ExpectBad(GgufHead(0, 1) + Entry("", 0, "xx"), {"metadata key is empty"});
  ExpectBad(GgufHead(0, 1) + Entry("a\xFF", 0, "x"), {"not valid UTF-8"});
  ExpectBad(GgufHead(0, 1) + Entry(std::string_view("a\0b", 3), 0, "x"), {"NUL"});
  ExpectBad(GgufHead(0, 2) + Entry("k", 0, "x") + Entry("k", 0, "y"), {"'k' occurs twice"});
}

TEST(GgufHeader, Alignment) {
  const auto with = [](uint32_t type, std::string_view value) {
    const std::string head = GgufHead(1, 1) + Entry("general.alignment", type, value);
    return Padded(head + GgufInfo("t", {4}, kF32, 0), 64) + std::string(16, 'd');
  };
  const GgufHeader header = Parse(with(4, Raw<uint32_t>(64)));
  EXPECT_EQ(header.alignment, 64u);
  EXPECT_EQ(header.data_offset % 64, 0u);
  for (const uint32_t wrong : {0u, 3u, 48u}) {
    ExpectError(ErrorCode::kBadInput, {"general.alignment", "no power of two"},
                [&] { Parse(with(4, Raw(wrong))); });
  }
  ExpectError(ErrorCode::kBadInput, {"general.alignment", "U64", "a U32"},
              [&] { Parse(with(10, Raw<uint64_t>(64))); });
}

TEST(GgufHeader, TensorTypes) {
  const std::string data(512, 'd');
  ExpectBad(OneTensor(GgufInfo("t", {32}, 4, 0), data), {"'t'", "Q4_2", "removed"});
  ExpectBad(OneTensor(GgufInfo("t", {32}, 31, 0), data), {"'t'", "Q4_0_4_4", "removed"});
  ExpectBad(OneTensor(GgufInfo("t", {32}, 99, 0), data), {"'t'", "type 99", "newer"});
  ExpectBad(OneTensor(GgufInfo("t", {33}, kQ4_0, 0), data),
            {"'t'", "rows of 33 elements", "32 of a Q4_0 block"});
}

TEST(GgufHeader, TensorShapesAndNames) {
  const std::string data(64, 'd');
  const auto info = [&](const std::vector<int64_t>& sizes) {
    return OneTensor(GgufInfo("t", sizes, kF32, 0), data);
  };
  ExpectBad(info({1, 1, 1, 1, 1}), {"'t' has 5 dimensions", "at most 4"});
  ExpectBad(info({-1}), {"'t'", "above 2^63"});
  ExpectBad(info({INT64_MAX, 2}), {"'t'", "overflows"});
  ExpectBad(info({INT64_MAX}), {"'t'", "overflows"});
  EXPECT_EQ(Parse(info({0, INT64_MAX}).substr(0, 96)).tensors[0].bytes, 0u);
  ExpectBad(OneTensor(GgufInfo(std::string(64, 'n'), {16}, kF32, 0), data), {"64 bytes"});
  Parse(OneTensor(GgufInfo(std::string(63, 'n'), {16}, kF32, 0), data));
  ExpectBad(OneTensor(GgufInfo("", {16}, kF32, 0), data), {"name is empty"});
  ExpectBad(OneTensor(GgufInfo("\xC3", {16}, kF32, 0), data), {"UTF-8"});
}

TEST(GgufHeader, Layout) {
  const auto two = [](uint64_t first, uint64_t second, std::string_view name = "b") {
    return Padded(GgufHead(2, 0) + GgufInfo("a", {3}, kF32, first) +
                  GgufInfo(name, {8}, kF32, second)) +
           std::string(64, 'd');
  };
  Parse(two(0, 32));
  ExpectBad(two(32, 64), {"'a'", "offset is 32", "end at 0"});
  ExpectBad(two(0, 12), {"'b'", "offset is 12", "end at 32"});
  ExpectBad(two(0, 64), {"'b'", "offset is 64", "end at 32"});
  ExpectBad(two(0, UINT64_MAX - 31), {"'b'", "end at 32"});
  ExpectBad(two(0, 32, "a"), {"'a' occurs twice"});
  // Sizes whose sum wraps around.
  const int64_t huge = int64_t{1} << 60;
  std::string wrap = GgufHead(5, 0);
  for (uint64_t i = 0; i < 5; ++i) {
    wrap += GgufInfo(std::string(1, static_cast<char>('a' + i)), {huge}, kF32, i << 62);
  }
  ExpectBad(Padded(wrap), {"'a'", "cut short"});
}

}  // namespace
}  // namespace quantmill::test
