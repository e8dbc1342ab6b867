#include "formats/file_faults.h"
#include "formats/gguf.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

TEST(GgufWriter, EmptyGolden) {
  TempFolder folder;
  GgufWriter writer(folder / "f", {}, {});
  EXPECT_TRUE(writer.complete());
  writer.Finish();
  EXPECT_EQ(ReadFile(folder / "f"), Padded(GgufHead(0, 0)));
}

TEST(GgufWriter, Golden) {
  TempFolder folder;
  GgufWriter writer(folder / "f",
                    {{"name", std::string("x")},
                     {"flags", GgufArray(std::vector<bool>{true, false})},
                     {"texts", GgufArray(std::vector<std::string>{"ab", ""})},
                     {"wide", int64_t{-2}}},
                    {{"q", GgmlType::kQ4_0, {2, 32}}, {"v", GgmlType::kF32, {3}}});
  writer.Write("v", AsBytes("vvvvvvvvvvvv"));
  writer.WriteAt("q", 30, AsBytes("QQQQQQ"));
  EXPECT_FALSE(writer.complete());
  writer.WriteAt("q", 0, AsBytes(std::string(30, 'q')));
  EXPECT_TRUE(writer.complete());
  writer.Finish();
  std::string want = GgufHead(2, 4);
  want += GgufText("name") + Raw<uint32_t>(8) + GgufText("x");
  want += GgufText("flags") + Raw<uint32_t>(9) + Raw<uint32_t>(7) + Raw<uint64_t>(2) +
          std::string("\1\0", 2);
  want += GgufText("texts") + Raw<uint32_t>(9) + Raw<uint32_t>(8) + Raw<uint64_t>(2) +
          GgufText("ab") + GgufText("");
  want += GgufText("wide") + Raw<uint32_t>(11) + Raw<int64_t>(-2);
  want += GgufInfo("q", {32, 2}, 2, 0) + GgufInfo("v", {3}, 0, 64);
  want = Padded(want) + Padded(std::string(30, 'q') + "QQQQQQ") + Padded("vvvvvvvvvvvv");
  EXPECT_EQ(ReadFile(folder / "f"), want);
}

// Everything that gguf-py wrote, written again: the same bytes.
TEST(GgufWriter, SameBytesAsGgufPy) {
  for (const char* name : {"gguf_blocks.gguf", "gguf_imatrix.gguf"}) {
    const fs::path golden = fs::path("tests/formats/golden") / name;
    const GgufFile file = GgufFile::Open(golden);
    std::vector<GgufDeclaration> declarations;
    for (const GgufTensor& tensor : file.tensors()) {
      declarations.push_back({tensor.name, tensor.type, tensor.shape});
    }
    TempFolder folder;
    GgufWriter writer(folder / "f", file.metadata().entries(), declarations);
    for (const GgufTensor& tensor : file.tensors()) writer.Write(tensor.name, file.Bytes(tensor));
    writer.Finish();
    EXPECT_EQ(ReadFile(folder / "f"), ReadFile(golden)) << name;
  }
}

TEST(GgufWriter, RoundTripWithAnotherAlignment) {
  TempFolder folder;
  const std::vector<GgufEntry> entries = {{"a", uint8_t{1}},
                                          {"b", 0.5f},
                                          {"c", GgufArray(std::vector<double>{})},
                                          {"d", GgufArray(std::vector<uint64_t>{1, 2})}};
  const std::string bytes(100, 'd');
  GgufWriter writer(folder / "f", entries,
                    {{"t", GgmlType::kF32, {5, 1, 5}}, {"none", GgmlType::kF16, {0, 3}}}, 256);
  writer.Write("t", AsBytes(bytes));
  writer.Finish();
  const GgufFile file = GgufFile::Open(folder / "f");
  EXPECT_EQ(file.alignment(), 256u);
  EXPECT_EQ(file.metadata().entries().size(), 5u);
  EXPECT_EQ(*file.metadata().Find("d"), entries[3].value);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_THAT(file.tensors()[0].shape, ElementsAre(5, 1, 5));
  EXPECT_EQ(file.tensors()[0].offset % 256, 0u);
  const auto held = file.Bytes(*file.Find("t"));
  EXPECT_TRUE(std::equal(held.begin(), held.end(), AsBytes(bytes).begin()));
  EXPECT_EQ(file.Find("none")->bytes, 0u);
}

TEST(GgufWriter, RefusesBeforeAFileExists) {
  TempFolder folder;
  const auto refused = [&](const std::vector<std::string>& parts,
                           const std::vector<GgufEntry>& entries,
                           const std::vector<GgufDeclaration>& tensors) {
    ExpectError(ErrorCode::kBadInput, parts, [&] { GgufWriter(folder / "f", entries, tensors); });
    EXPECT_FALSE(fs::exists(folder / "f"));
  };
  constexpr GgmlType kF32 = GgmlType::kF32;
  refused({"tensor 'a'", "declared twice"}, {}, {{"a", kF32, {1}}, {"a", kF32, {2}}});
  refused({"metadata key 'k'", "declared twice"}, {{"k", true}, {"k", false}}, {});
  refused({"name is empty"}, {{"", true}}, {});
  refused({"name is empty"}, {}, {{"", kF32, {1}}});
  refused({"UTF-8"}, {}, {{"\xFF", kF32, {1}}});
  refused({"64 bytes", "63"}, {}, {{std::string(64, 'n'), kF32, {1}}});
  refused({"'t'", "four dimensions"}, {}, {{"t", kF32, {1, 1, 1, 1, 1}}});
  refused({"'t'", "negative"}, {}, {{"t", kF32, {2, -1}}});
  refused({"'t'", "overflows"}, {}, {{"t", kF32, {INT64_MAX, 4}}});
  refused({"'t'", "rows of 33", "Q4_0"}, {}, {{"t", GgmlType::kQ4_0, {32, 33}}});
  const std::vector<int64_t> large = {int64_t{1} << 57};
  refused({"'c'", "together overflow"}, {},
          {{"a", kF32, large}, {"b", GgmlType::kF64, large}, {"c", kF32, large}});
}

TEST(GgufWriterDeathTest, CallersErrors) {
  TempFolder folder;
  GgufWriter writer(folder / "f", {}, {{"t", GgmlType::kF32, {2}}});
  EXPECT_DEATH(writer.Write("u", {}), "not declared");
  EXPECT_DEATH(writer.Write("t", AsBytes("1234")), "wrong size");
  EXPECT_DEATH(writer.WriteAt("t", 8, AsBytes("1")), "outside");
  EXPECT_DEATH(writer.Finish(), "'t' was not written completely");
  writer.Write("t", AsBytes("12345678"));
  EXPECT_DEATH(writer.WriteAt("t", 0, AsBytes("1")), "twice");
  EXPECT_DEATH(GgufWriter(folder / "g", {{"general.alignment", uint32_t{64}}}, {}), "alignment");
  EXPECT_DEATH(GgufWriter(folder / "g", {}, {}, 24), "power of two");
}

TEST(GgufWriter, DiskFull) {
  TempFolder folder;
  const ScopedFileFaults faults({.write_budget = 10});
  ExpectError(ErrorCode::kEnvironment, {"f", "No space"}, [&] {
    GgufWriter writer(folder / "f", {}, {{"t", GgmlType::kF32, {2}}});
  });
}

}  // namespace
}  // namespace quantmill::test
