#include "formats/checkpoint_writer.h"

#include <cerrno>
#include <nlohmann/json.hpp>

#include "formats/checkpoint.h"
#include "formats/file_faults.h"
#include "formats/json.h"
#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<TensorDeclaration> kTensors = {
    Declare("embed", DType::kF32, {4}),    // 16 bytes
    Declare("l0.w", DType::kF32, {8}),     // 32
    Declare("l0.b", DType::kF16, {1, 4}),  // 8
    Declare("none", DType::kF16, {0}),     // 0
    Declare("l1.w", DType::kF32, {25}),    // 100: larger than a shard
    Declare("l1.b", DType::kU8, {3}),      // 3
};

std::string DataOf(const TensorDeclaration& tensor) {
  std::string data = tensor.name;
  data.resize(tensor.bytes(), '#');
  return data;
}

// Writes all tensors, in or against the order of their declaration.
void WriteAll(const fs::path& path, uint64_t max_shard_bytes, bool reversed) {
  OutputFolder folder(path, false);
  CheckpointWriter writer(folder, kTensors, max_shard_bytes);
  std::vector<TensorDeclaration> order = kTensors;
  if (reversed) std::reverse(order.begin(), order.end());
  for (const TensorDeclaration& tensor : order) {
    const std::string data = DataOf(tensor);
    const size_t half = data.size() / 2;
    writer.WriteAt(tensor.name, half, AsBytes(data).subspan(half));
    writer.WriteAt(tensor.name, 0, AsBytes(data).first(half));
  }
  writer.Finish();
  EXPECT_EQ(writer.total_bytes(), 159u);
  folder.WriteText("config.json", "{}");
  folder.Commit();
}

void ExpectContent(const fs::path& path) {
  const Checkpoint model = Checkpoint::Open(path.string());
  EXPECT_EQ(model.names().size(), kTensors.size());
  for (const TensorDeclaration& tensor : kTensors) {
    const auto bytes = model.Bytes(tensor.name);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
              DataOf(tensor));
  }
}

TEST(CheckpointWriter, OneFileHasNoIndex) {
  TempFolder temp;
  WriteAll(temp / "m", kDefaultShardBytes, false);
  EXPECT_THAT(List(temp / "m"), ElementsAre("config.json", "model.safetensors"));
  ExpectContent(temp / "m");
}

TEST(CheckpointWriter, Shards) {
  TempFolder temp;
  WriteAll(temp / "m", 56, false);
  EXPECT_THAT(List(temp / "m"),
              ElementsAre("config.json", "model-00001-of-00003.safetensors",
                          "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
                          "model.safetensors.index.json"));
  ExpectContent(temp / "m");
  const auto index = ReadJsonFile(temp / "m/model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 159);
  EXPECT_EQ(index["weight_map"]["none"], "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["l1.w"], "model-00002-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["l1.b"], "model-00003-of-00003.safetensors");
}

TEST(CheckpointWriter, OrderOfWritingDoesNotMatter) {
  TempFolder temp;
  for (const uint64_t shard : {uint64_t{1}, uint64_t{56}, kDefaultShardBytes}) {
    fs::remove_all(temp / "1");
    fs::remove_all(temp / "2");
    WriteAll(temp / "1", shard, false);
    WriteAll(temp / "2", shard, true);
    ASSERT_EQ(List(temp / "1"), List(temp / "2"));
    for (const std::string& name : List(temp / "1")) {
      EXPECT_EQ(ReadFile(temp / "1" / name), ReadFile(temp / "2" / name)) << name;
    }
  }
}

TEST(CheckpointWriter, NoTensors) {
  TempFolder temp;
  OutputFolder folder(temp / "m", false);
  CheckpointWriter writer(folder, {});
  writer.Finish();
  EXPECT_THAT(List(folder.path()), ElementsAre("model.safetensors"));
}

TEST(CheckpointWriter, RefusesBadDeclarations) {
  TempFolder temp;
  OutputFolder folder(temp / "m", false);
  // Twice in different shards: no single file would notice.
  ExpectError(ErrorCode::kBadInput, {"tensor 'a'", "declared twice"}, [&] {
    CheckpointWriter(folder, {Declare("a", DType::kU8, {9}), Declare("a", DType::kU8, {9})}, 9);
  });
  const int64_t huge = int64_t{1} << 60;
  ExpectError(ErrorCode::kBadInput, {"overflow"}, [&] {
    std::vector<TensorDeclaration> tensors;
    tensors.reserve(17);
    for (int i = 0; i < 17; ++i) {
      tensors.push_back(Declare(std::to_string(i), DType::kU8, {huge}));
    }
    CheckpointWriter(folder, tensors);
  });
  ExpectError(ErrorCode::kEnvironment, {"are free"},
              [&] { CheckpointWriter(folder, {Declare("a", DType::kU8, {huge})}); });
}

TEST(CheckpointWriterDeathTest, MisuseIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TempFolder temp;
  OutputFolder folder(temp / "m", false);
  CheckpointWriter writer(folder, kTensors, 56);
  EXPECT_DEATH(writer.Write("unknown", {}), "not declared");
  writer.Write("embed", AsBytes(std::string(16, 'x')));
  EXPECT_DEATH(writer.Finish(), "was not written completely");
  writer.Write("l1.b", AsBytes("abc"));
  EXPECT_DEATH(writer.Write("l1.b", AsBytes("abc")), "written twice");
}

// Fails after every number of bytes in turn: nothing may appear under the final name.
TEST(CheckpointWriter, DiskFullAtAnyByte) {
  TempFolder temp;
  bool worked = false;
  int64_t budget = 0;
  for (; !worked && budget < 5000; budget += 53) {
    const ScopedFileFaults faults({.write_budget = budget, .reserve_errno = EOPNOTSUPP});
    try {
      WriteAll(temp / "m", 56, false);
      worked = true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
      EXPECT_THAT(error.what(), testing::HasSubstr("No space left"));
      EXPECT_THAT(List(temp.path()), IsEmpty()) << budget;
    }
  }
  EXPECT_TRUE(worked);
  EXPECT_GT(budget, 500);
}

}  // namespace
}  // namespace quantmill::test
