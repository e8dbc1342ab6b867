// The reader: golden bytes, every check of the format, every truncation, every mutated byte.
#include "formats/safetensors.h"

#include <set>

#include "formats/json.h"
#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

using testing::HasSubstr;

SafetensorsHeader Parse(std::string_view bytes) {
  // A fresh heap block of the exact size, so that a sanitizer sees a read past the end.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  return ParseSafetensorsHeader(std::as_bytes(std::span(copy)), copy.size(), "file.safetensors");
}

void ExpectBad(std::string_view bytes, std::vector<std::string> parts) {
  parts.insert(parts.end(), {"file.safetensors", "byte offset"});
  ExpectError(ErrorCode::kBadInput, parts, [&] { Parse(bytes); });
}

// One tensor "a" with these fields, and `data`.
std::string OneTensor(const std::string& fields, std::string_view data = "") {
  return Safetensors(R"({"a":{)" + fields + "}}", data);
}

constexpr char kGood[] =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
    R"("a":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]},)"
    R"("z":{"dtype":"I64","shape":[0,4],"data_offsets":[14,14]}})";
const std::string kGoodData(14, 'd');

TEST(Safetensors, Parses) {
  const SafetensorsHeader header = Parse(Safetensors(kGood, kGoodData));
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].dtype, "BF16");
  EXPECT_EQ(header.tensors[0].type(), DType::kBF16);
  EXPECT_EQ(header.tensors[0].elements(), 3);
  EXPECT_EQ(header.tensors[1].shape, std::vector<int64_t>{2});
  EXPECT_EQ(header.tensors[2].elements(), 0);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_EQ(header.data_offset, 8 + sizeof(kGood) - 1);
}

TEST(Safetensors, EmptyFileOfTheReference) {
  const std::string bytes("\x08\0\0\0\0\0\0\0{}      ", 16);
  EXPECT_TRUE(Parse(bytes).tensors.empty());
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string good = Safetensors(kGood, kGoodData);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(Parse(good.substr(0, size)), Error) << size;
  }
  ExpectBad(good.substr(0, good.size() - 1), {"tensor 'a'", "1 bytes before the end", "cut short"});
}

TEST(Safetensors, EveryMutatedByteIsAnErrorOrParses) {
  const std::string good = Safetensors(kGood, kGoodData);
  for (size_t i = 0; i < good.size() - kGoodData.size(); ++i) {
    std::set<char> values = {0, 1, '\x7F', '\xFF', '0', '9', '"', '{', '}', '[', ']', ',', ' '};
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

TEST(Safetensors, HeaderSize) {
  const auto with_size = [](uint64_t size) {
    std::string bytes = Safetensors("{}", "");
    std::memcpy(bytes.data(), &size, sizeof(size));
    return bytes;
  };
  ExpectBad("", {"0 bytes"});
  ExpectBad("1234567", {"7 bytes"});
  ExpectBad(with_size(3), {"past the end"});
  ExpectBad(with_size(100'000'000), {"past the end"});
  ExpectBad(with_size(100'000'001), {"over the format's limit"});
  ExpectBad(with_size(UINT64_MAX), {"over the format's limit"});
  ExpectBad(with_size(0), {"does not start with"});
}

TEST(Safetensors, HeaderText) {
  ExpectBad(Safetensors(" {}", ""), {"does not start with '{'", "byte offset 8"});
  ExpectBad(Safetensors("[]", ""), {"does not start with"});
  ExpectBad(Safetensors("\xEF\xBB\xBF{}", ""), {"does not start with"});  // byte order mark
  ExpectBad(Safetensors("{\"\xFF\":1}", ""), {"not valid UTF-8", "byte offset 10"});
  ExpectBad(Safetensors("{} x", ""), {"not valid JSON"});
  ExpectBad(Safetensors("{}{}", ""), {"not valid JSON"});
  ExpectBad(Safetensors("{", ""), {"not valid JSON"});
  ExpectBad(Safetensors(std::string("{}\0\0", 4), ""), {"NUL", "byte offset 10"});
  EXPECT_NO_THROW(Parse(Safetensors("{}   ", "")));
}

TEST(Safetensors, DuplicateKeys) {
  const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  ExpectBad(Safetensors(R"({"a":)" + entry + R"(,"a":)" + entry + "}", "x"),
            {"tensor 'a'", "key 'a' is given twice"});
  ExpectBad(OneTensor(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])", "x"),
            {"tensor 'a'", "key 'dtype' is given twice"});
  ExpectBad(Safetensors(R"({"__metadata__":{"k":"1","k":"2"}})", ""), {"key 'k' is given twice"});
  ExpectBad(Safetensors(R"({"__metadata__":{},"__metadata__":{}})", ""), {"'__metadata__'"});
}

TEST(Safetensors, Structure) {
  ExpectBad(Safetensors(R"({"a":1})", ""), {"tensor 'a'", "number is not expected"});
  ExpectBad(Safetensors(R"({"a":[]})", ""), {"tensor 'a'", "array is not expected"});
  ExpectBad(Safetensors(R"({"a":null})", ""), {"tensor 'a'", "null"});
  ExpectBad(Safetensors(R"({"a":true})", ""), {"boolean"});
  ExpectBad(Safetensors(R"({"a":{}})", ""), {"tensor 'a'", "has no dtype"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[1])"), {"has no data_offsets"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[1],"data_offsets":[0])"), {"two numbers"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,1])"), {"two numbers"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"), {"array is not"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), {"negative"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), {"whole number"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[1e3],"data_offsets":[0,1])"), {"whole number"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"), {"string is not"});
  ExpectBad(OneTensor(R"("dtype":"I4","shape":[1],"data_offsets":[0,1])"), {"unknown dtype 'I4'"});
  ExpectBad(OneTensor(R"("dtype":"U8","strides":[1])"), {"unknown field 'strides'"});
  ExpectBad(OneTensor(R"("dtype":{"x":1}")"), {"object is not expected"});
  ExpectBad(Safetensors(R"({"__metadata__":{"k":1}})", ""), {"number is not expected"});
  ExpectBad(Safetensors(R"({"__metadata__":{"k":{"l":"m"}}})", ""), {"object is not expected"});
  const std::string deep(1'000'000, '[');
  ExpectBad(Safetensors(R"({"a":{"shape":)" + deep, ""), {"array is not expected"});
}

TEST(Safetensors, Layout) {
  const auto two = [](const std::string& a, const std::string& b, std::string_view data) {
    return Safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
                           R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}",
                       data);
  };
  EXPECT_NO_THROW(Parse(two("[2,4]", "[0,2]", "1234")));
  ExpectBad(two("[0,2]", "[3,5]", "12345"), {"tensor 'b'", "a hole of 1 bytes"});
  ExpectBad(two("[1,3]", "[3,5]", "12345"), {"tensor 'a'", "a hole of 1 bytes"});
  ExpectBad(two("[0,2]", "[1,3]", "123"), {"tensor 'b'", "overlaps"});
  ExpectBad(two("[0,2]", "[0,2]", "12"), {"overlaps"});
  ExpectBad(two("[0,2]", "[4,2]", "1234"), {"tensor 'b'", "ends before it begins"});
  ExpectBad(two("[0,2]", "[2,4]", "12345"), {"1 bytes follow the last tensor"});
  ExpectBad(two("[0,2]", "[2,5]", "12345"), {"U8 [2] needs 2 bytes", "give it 3"});
  ExpectBad(two("[0,2]", "[18446744073709551615,18446744073709551615]", "12"), {"a hole of"});
  ExpectBad(Safetensors("{}", "x"), {"1 bytes follow"});
}

TEST(Safetensors, SizesOverflow) {
  const std::string big = "4611686018427387904";  // 2^62
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[)" + big + "," + big + R"(],"data_offsets":[0,0])"),
            {"overflows"});
  ExpectBad(OneTensor(R"("dtype":"F64","shape":[)" + big + R"(],"data_offsets":[0,0])"),
            {"overflows"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,0])"),
            {"out of range"});
  ExpectBad(OneTensor(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,0])"),
            {"whole number"});
}

TEST(Safetensors, LegalTypesWithoutADType) {
  const SafetensorsHeader header =
      Parse(OneTensor(R"("dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2])", "xy"));
  EXPECT_FALSE(header.tensors[0].type());
  EXPECT_NO_THROW(Parse(OneTensor(R"("dtype":"F4","shape":[4],"data_offsets":[0,2])", "xy")));
  EXPECT_NO_THROW(Parse(OneTensor(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3])", "xyz")));
  ExpectBad(OneTensor(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])", "xy"), {"no whole byte"});
  EXPECT_EQ(BitsOfSafetensorsType("C64"), 64);
  EXPECT_EQ(BitsOfSafetensorsType("I4"), 0);
}

TEST(Safetensors, ScalarAndEscapedNames) {
  const SafetensorsHeader header =
      Parse(Safetensors(R"({"\u00e9\n":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "1234"));
  EXPECT_EQ(header.tensors[0].name, "\xC3\xA9\n");
  EXPECT_EQ(header.tensors[0].elements(), 1);
  ExpectBad(Safetensors(R"({"\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "1234"),
            {"not valid JSON"});
}

TEST(SafetensorsFile, ReadsFromDisk) {
  TempFolder folder;
  WriteFile(folder / "f.safetensors", Safetensors(kGood, "01234567abcdef"));
  const SafetensorsFile file = SafetensorsFile::Open(folder / "f.safetensors");
  ASSERT_NE(file.Find("a"), nullptr);
  EXPECT_EQ(file.Find("c"), nullptr);
  const auto bytes = file.Bytes(*file.Find("a"));
  EXPECT_EQ(std::memcmp(bytes.data(), "abcdef", 6), 0);
  EXPECT_EQ(file.FileOffset(*file.Find("a")), 8 + sizeof(kGood) - 1 + 8);
}

}  // namespace
}  // namespace quantmill::test
