// Importance matrices: both formats, told apart by content; every truncation; what is refused.
#include "formats/gguf.h"
#include "formats/gguf/imatrix.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

std::string LegacyText(std::string_view text) {
  return Raw(static_cast<int32_t>(text.size())) + std::string(text);
}
std::string LegacyEntry(std::string_view name, int32_t calls, const std::vector<float>& values) {
  return LegacyText(name) + Raw(calls) + Raw(static_cast<int32_t>(values.size())) + AsText(values);
}

ImportanceMatrix Read(const TempFolder& folder, std::string_view bytes) {
  WriteFile(folder / "file.dat", bytes);
  return ReadImportanceMatrix(folder / "file.dat");
}

ImportanceMatrix Sample() {
  ImportanceMatrix matrix;
  matrix.entries["blk.0.attn_q.weight"] = {{2, 4, 6}, {2}};
  matrix.entries["blk.0.ffn_up_exps.weight"] = {{1, 2, 3, 4, 5, 6}, {1, 0, 3}};
  matrix.datasets = {"a.txt", "b.txt"};
  matrix.chunk_count = 9;
  matrix.chunk_size = 512;
  return matrix;
}

TEST(ImportanceMatrix, Means) {
  const ImportanceMatrix matrix = Sample();
  EXPECT_THAT(matrix.entries.at("blk.0.attn_q.weight").Means(), ElementsAre(1, 2, 3));
  const ImportanceEntry& experts = matrix.entries.at("blk.0.ffn_up_exps.weight");
  EXPECT_EQ(experts.matrices(), 3u);
  EXPECT_EQ(experts.cols(), 2u);
  EXPECT_THAT(experts.Means(), ElementsAre(1, 2, 1, 1, 5.0f / 3, 2));
}

TEST(ImportanceMatrix, ReadsTheLegacyFormat) {
  TempFolder folder;
  const std::string entries =
      Raw<int32_t>(2) + LegacyEntry("x", 4, {4, 8}) + LegacyEntry("raw", 0, {0.5f});
  const ImportanceMatrix matrix = Read(folder, entries + Raw<int32_t>(7) + LegacyText("wiki.txt"));
  ASSERT_THAT(matrix.entries, SizeIs(2));
  EXPECT_THAT(matrix.entries.at("x").Means(), ElementsAre(1, 2));
  EXPECT_THAT(matrix.entries.at("raw").Means(), ElementsAre(0.5f));
  EXPECT_EQ(matrix.chunk_count, 7u);
  EXPECT_THAT(matrix.datasets, ElementsAre("wiki.txt"));
  EXPECT_TRUE(Read(folder, entries).datasets.empty());  // the oldest files end after the entries
}

TEST(ImportanceMatrix, ReadsWhatGgufPyWrites) {
  const ImportanceMatrix matrix = ReadImportanceMatrix("tests/formats/golden/gguf_imatrix.gguf");
  ASSERT_THAT(matrix.entries, SizeIs(2));
  EXPECT_THAT(matrix.datasets, ElementsAre("a.txt", "b.txt"));
  EXPECT_EQ(matrix.chunk_count, 7u);
  EXPECT_EQ(matrix.chunk_size, 512u);
  EXPECT_THAT(matrix.entries.at("blk.0.attn_q.weight").counts, ElementsAre(2));
  const ImportanceEntry& experts = matrix.entries.at("blk.0.ffn_up_exps.weight");
  EXPECT_THAT(experts.counts, ElementsAre(2, 4, 0));
  EXPECT_EQ(experts.cols(), 2u);
}

TEST(ImportanceMatrix, GgufRoundTrip) {
  TempFolder folder;
  WriteImportanceMatrix(folder / "m.gguf", Sample());
  // The name says nothing about the format.
  std::filesystem::rename(folder / "m.gguf", folder / "m.dat");
  EXPECT_EQ(ReadImportanceMatrix(folder / "m.dat"), Sample());
  const GgufFile file = GgufFile::Open(folder / "m.dat");
  EXPECT_EQ(*file.metadata().Text("general.type"), "imatrix");
  EXPECT_THAT(file.Find("blk.0.attn_q.weight.in_sum2")->shape, ElementsAre(3));
  EXPECT_THAT(file.Find("blk.0.ffn_up_exps.weight.in_sum2")->shape, ElementsAre(3, 2));
  EXPECT_THAT(file.Find("blk.0.ffn_up_exps.weight.counts")->shape, ElementsAre(3, 1));
}

TEST(ImportanceMatrix, LegacyRoundTripKeepsMeans) {
  TempFolder folder;
  WriteLegacyImportanceMatrix(folder / "m.dat", Sample());
  const ImportanceMatrix matrix = ReadImportanceMatrix(folder / "m.dat");
  for (const auto& [name, entry] : Sample().entries) {
    const std::vector<float> want = entry.Means();
    const std::vector<float> got = matrix.entries.at(name).Means();
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_FLOAT_EQ(got[i], want[i]);
  }
  EXPECT_THAT(matrix.datasets, ElementsAre("a.txt b.txt"));
  EXPECT_EQ(matrix.chunk_count, 9u);
}

TEST(ImportanceMatrix, EveryTruncationIsAnError) {
  TempFolder folder;
  WriteLegacyImportanceMatrix(folder / "old", Sample());
  WriteImportanceMatrix(folder / "new", Sample());
  const std::string old = ReadFile(folder / "old");
  const size_t trailer = 4 + LegacyText("a.txt b.txt").size();
  for (size_t size = 0; size < old.size(); ++size) {
    if (size == old.size() - trailer) continue;  // a whole file of the oldest kind
    EXPECT_THROW(Read(folder, old.substr(0, size)), Error) << size;
  }
  const std::string fresh = ReadFile(folder / "new");
  const GgufFile file = GgufFile::Open(folder / "new");
  for (size_t size = 0; size < file.tensors().back().end(); ++size) {
    EXPECT_THROW(Read(folder, fresh.substr(0, size)), Error) << size;
  }
}

TEST(ImportanceMatrix, RefusesBadLegacyFiles) {
  TempFolder folder;
  const auto bad = [&](std::string_view bytes, std::vector<std::string> parts) {
    parts.emplace_back("file.dat");
    ExpectError(ErrorCode::kBadInput, parts, [&] { Read(folder, bytes); });
  };
  bad(Raw<int32_t>(0), {"no entries"});
  bad(Raw<int32_t>(-1), {"number of entries is -1"});
  bad(Raw<int32_t>(INT32_MAX), {"cannot fit"});
  bad(Raw<int32_t>(1) + LegacyEntry("", 1, {1, 1}), {"name is empty"});
  bad(Raw<int32_t>(1) + LegacyEntry("x", 1, {}) + "more", {"'x' has no values"});
  bad(Raw<int32_t>(1) + LegacyEntry("x", -1, {1}), {"'x'", "calls is -1"});
  bad(Raw<int32_t>(1) + LegacyEntry("x", 1, {1, -2}), {"'x'", "value 1 is -2"});
  bad(Raw<int32_t>(2) + LegacyEntry("x", 1, {1}) + LegacyEntry("x", 1, {1}), {"'x' occurs twice"});
  bad(Raw<int32_t>(1) + LegacyText("x") + Raw<int32_t>(1) + Raw<int32_t>(INT32_MAX) + "more",
      {"'x'", "cannot fit"});
  bad(Raw<int32_t>(1) + LegacyEntry("x", 1, {1}) + Raw<int32_t>(1) + LegacyText("d") + "more",
      {"4 bytes follow"});
}

TEST(ImportanceMatrix, RefusesBadGgufFiles) {
  TempFolder folder;
  int made = 0;
  const auto bad = [&](const std::vector<GgufEntry>& entries,
                       const std::vector<GgufDeclaration>& tensors,
                       std::vector<std::string> parts) {
    const auto path = folder / ("f" + std::to_string(made++));
    GgufWriter writer(path, entries, tensors);
    for (const GgufDeclaration& tensor : tensors) {
      writer.Write(tensor.name, AsBytes(std::string(tensor.bytes(), '\0')));
    }
    writer.Finish();
    parts.push_back(path.filename().string());
    ExpectError(ErrorCode::kBadInput, parts, [&] { ReadImportanceMatrix(path); });
  };
  constexpr GgmlType kF32 = GgmlType::kF32;
  const std::vector<GgufEntry> type = {{"general.type", std::string("imatrix")}};
  bad({}, {}, {"type 'model'"});
  bad({{"general.type", std::string("adapter")}}, {}, {"type 'adapter'"});
  bad(type, {}, {"no entries"});
  bad(type, {{"x.in_sum2", kF32, {4}}}, {"'x.in_sum2' has no counts"});
  bad(type, {{"x.counts", kF32, {1}}}, {"'x.counts' belongs to no entry"});
  bad(type, {{"x", kF32, {1}}}, {"'x' belongs to no entry"});
  bad(type, {{"x.in_sum2", kF32, {4}}, {"x.counts", kF32, {2}}}, {"x.in_sum2", "2 counts"});
  bad(type, {{"x.in_sum2", GgmlType::kF16, {4}}, {"x.counts", kF32, {1}}}, {"F16", "F32"});
  bad(type, {{"x.in_sum2", kF32, {0}}, {"x.counts", kF32, {0}}}, {"x.in_sum2"});
}

}  // namespace
}  // namespace quantmill::test
