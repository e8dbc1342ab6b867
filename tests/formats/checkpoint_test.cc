#include "formats/checkpoint.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

// A file with one U8 tensor of one byte for every name.
std::string FileOf(const std::vector<std::string>& names) {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    header += (i ? "," : "") +
              ("\"" + names[i] + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)") +
              std::to_string(i) + "," + std::to_string(i + 1) + "]}";
  }
  return Safetensors(header + "}", std::string(names.size(), 'x'));
}

void WriteModel(const fs::path& folder, const std::string& weights) {
  WriteFile(folder / "config.json", R"({"model_type":"llama"})");
  WriteFile(folder / "model.safetensors", weights);
}

void ExpectBadModel(const fs::path& model, const std::vector<std::string>& parts) {
  ExpectError(ErrorCode::kBadInput, parts, [&] { Checkpoint::Open(model.string()); });
}

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    // No test may see the user's own cache.
    setenv("HF_HUB_CACHE", (temp_ / "hub").c_str(), 1);
  }
  ~CheckpointTest() override { unsetenv("HF_HUB_CACHE"); }

  TempFolder temp_;
};

TEST_F(CheckpointTest, SingleFile) {
  WriteModel(temp_ / "m", FileOf({"b", "a"}));
  const Checkpoint model = Checkpoint::Open((temp_ / "m").string());
  EXPECT_EQ(model.config()["model_type"], "llama");
  EXPECT_THAT(model.names(), ElementsAre("a", "b"));
  EXPECT_TRUE(model.Has("a"));
  EXPECT_FALSE(model.Has("c"));
  EXPECT_EQ(model.total_bytes(), 2u);
  EXPECT_THAT(model.weight_files(), ElementsAre(temp_ / "m/model.safetensors"));
  EXPECT_THAT(model.Location("a"), testing::MatchesRegex(".*model.safetensors: tensor 'a' "
                                                         "\\(byte offset [0-9]+\\)"));
  ExpectError(ErrorCode::kBadInput, {"has no tensor 'c'"}, [&] { model.Bytes("c"); });
}

TEST_F(CheckpointTest, OneFileOfAnotherName) {
  WriteModel(temp_ / "m", FileOf({"a"}));
  fs::rename(temp_ / "m/model.safetensors", temp_ / "m/weights.safetensors");
  EXPECT_TRUE(Checkpoint::Open((temp_ / "m").string()).Has("a"));
  WriteFile(temp_ / "m/more.safetensors", FileOf({"b"}));
  ExpectBadModel(temp_ / "m", {"2 .safetensors files but no model.safetensors.index.json"});
}

TEST_F(CheckpointTest, NotAModel) {
  ExpectBadModel(temp_ / "nowhere", {"no such folder"});
  ExpectBadModel("", {"is empty"});
  ExpectBadModel("org/name", {"no such folder", "Hugging Face cache", "hf download org/name"});
  WriteFile(temp_ / "m/model.safetensors", FileOf({"a"}));
  ExpectBadModel(temp_ / "m", {"no config.json"});
  ExpectBadModel(temp_ / "m/model.safetensors", {"one weight file", "give the folder"});
  WriteFile(temp_ / "m/text.txt", "");
  ExpectBadModel(temp_ / "m/text.txt", {"no model folder"});
  WriteFile(temp_ / "n/config.json", "{}");
  ExpectBadModel(temp_ / "n", {"holds no .safetensors file"});
  WriteFile(temp_ / "n/pytorch_model.bin", "");
  ExpectBadModel(temp_ / "n", {"pickles", "convert them"});
}

TEST_F(CheckpointTest, BadConfig) {
  WriteModel(temp_ / "m", FileOf({"a"}));
  WriteFile(temp_ / "m/config.json", R"({"a":1,"a":2})");
  ExpectBadModel(temp_ / "m", {"config.json", "key 'a' given twice"});
  WriteFile(temp_ / "m/config.json", "[]");
  ExpectBadModel(temp_ / "m", {"no JSON object"});
  WriteFile(temp_ / "m/config.json", "{");
  ExpectBadModel(temp_ / "m", {"not valid JSON"});
}

TEST_F(CheckpointTest, BadWeightsNameTheFile) {
  WriteModel(temp_ / "m", FileOf({"a"}).substr(0, 20));
  ExpectBadModel(temp_ / "m", {"m/model.safetensors", "past the end"});
}

class ShardedTest : public CheckpointTest {
 protected:
  // Two shards, {a, b} and {c}, and this map in the index.
  void Write(const std::string& weight_map) {
    fs::remove_all(folder_);
    WriteFile(folder_ / "config.json", "{}");
    WriteFile(folder_ / "1.safetensors", FileOf({"a", "b"}));
    WriteFile(folder_ / "2.safetensors", FileOf({"c"}));
    WriteFile(folder_ / "model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
  }
  static constexpr char kGood[] =
      R"({"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"})";
  const fs::path folder_ = temp_ / "sharded";
};

TEST_F(ShardedTest, Opens) {
  Write(kGood);
  const Checkpoint model = Checkpoint::Open(folder_.string());
  EXPECT_THAT(model.names(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(model.weight_files().size(), 2u);
  EXPECT_THAT(model.Location("c"), testing::HasSubstr("2.safetensors"));
}

TEST_F(ShardedTest, IndexAndShardsDisagree) {
  Write(kGood);
  fs::remove(folder_ / "2.safetensors");
  ExpectBadModel(folder_, {"shard 2.safetensors is missing", "incomplete"});
  Write(R"({"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors","d":"2.safetensors"})");
  ExpectBadModel(folder_, {"tensor 'd' is not in its shard 2.safetensors"});
  Write(R"({"a":"1.safetensors","c":"2.safetensors"})");
  ExpectBadModel(folder_, {"1.safetensors", "tensor 'b'", "the index does not say so"});
  Write(kGood);
  WriteFile(folder_ / "2.safetensors", FileOf({"a", "c"}));
  ExpectBadModel(folder_, {"2.safetensors", "tensor 'a' is also in 1.safetensors"});
  Write(kGood);
  WriteFile(folder_ / "model.safetensors", FileOf({"a"}));
  ExpectBadModel(folder_, {"stale"});
}

TEST_F(ShardedTest, BadIndex) {
  Write(R"({"a":"../secret.safetensors"})");
  ExpectBadModel(folder_, {"tensor 'a'", "inside the model folder"});
  Write(R"({"a":"x/../../secret.safetensors"})");
  ExpectBadModel(folder_, {"inside the model folder"});
  Write(R"({"a":"/etc/secret.safetensors"})");
  ExpectBadModel(folder_, {"inside the model folder"});
  Write(R"({"a":"config.json"})");
  ExpectBadModel(folder_, {"no .safetensors file"});
  Write(R"({"a":1})");
  ExpectBadModel(folder_, {"is no string"});
  Write("{}");
  ExpectBadModel(folder_, {"is empty"});
  Write("[]");
  ExpectBadModel(folder_, {"no object weight_map"});
  Write(R"({"a":"1.safetensors","a":"2.safetensors"})");
  ExpectBadModel(folder_, {"key 'a' given twice"});
}

TEST_F(CheckpointTest, HubCache) {
  const fs::path model = temp_ / "hub/models--org--name";
  WriteFile(model / "refs/main", "abc123\n");
  WriteFile(model / "blobs/w", FileOf({"a"}));
  WriteFile(model / "snapshots/abc123/config.json", "{}");
  fs::create_symlink("../../blobs/w", model / "snapshots/abc123/model.safetensors");
  const Checkpoint opened = Checkpoint::Open("org/name");
  EXPECT_EQ(opened.folder(), model / "snapshots/abc123");
  EXPECT_TRUE(opened.Has("a"));
  EXPECT_FALSE(FindInHubCache("org/other"));
  EXPECT_FALSE(FindInHubCache("../models--org--name"));
  WriteFile(model / "refs/main", "../../..");
  ExpectBadModel("org/name", {"refs/main", "name of a revision"});
  WriteFile(model / "refs/main", "def");
  ExpectBadModel("org/name", {"snapshots/def", "download the model again"});
}

TEST_F(CheckpointTest, HubCacheFolder) {
  EXPECT_EQ(HubCacheFolder(), temp_ / "hub");
  setenv("HF_HUB_CACHE", "", 1);
  setenv("HF_HOME", "/hf", 1);
  EXPECT_EQ(HubCacheFolder(), "/hf/hub");
  unsetenv("HF_HOME");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/home/u", 1);
  EXPECT_EQ(HubCacheFolder(), "/home/u/.cache/huggingface/hub");
  EXPECT_TRUE(IsHubId("gpt2"));
  EXPECT_TRUE(IsHubId("Qwen/Qwen3-0.6B"));
  EXPECT_FALSE(IsHubId("/abs/path"));
  EXPECT_FALSE(IsHubId("a/b/c"));
  EXPECT_FALSE(IsHubId("../x"));
}

TEST_F(CheckpointTest, SideFiles) {
  const fs::path folder = temp_ / "m";
  WriteModel(folder, FileOf({"a"}));
  for (const std::string name :
       {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "merges.txt",
        "chat_template.jinja", "tokenizer.model", "README.md", "LICENSE", "pytorch_model.bin",
        "pytorch_model.bin.index.json", "quantize_config.json", ".gitattributes", "picture.png",
        "original/params.json", "manifest.json"}) {
    WriteFile(folder / name, "{}");
  }
  fs::create_symlink("nowhere", folder / "vocab.json");
  const SideFiles files = Checkpoint::Open(folder.string()).other_files();
  EXPECT_THAT(files.copied, ElementsAre("LICENSE", "README.md", "chat_template.jinja",
                                        "generation_config.json", "merges.txt", "tokenizer.json",
                                        "tokenizer.model", "tokenizer_config.json"));
  EXPECT_THAT(files.skipped,
              ElementsAre(".gitattributes: a hidden file",
                          "manifest.json: describes how the source was made",
                          "original: a subfolder", "picture.png: of an unknown kind",
                          "pytorch_model.bin.index.json: an index of other weights",
                          "pytorch_model.bin: weights in another format or of another model",
                          "quantize_config.json: describes how the source was quantized",
                          "vocab.json: a link to nothing"));
}

TEST_F(CheckpointTest, Views) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::string header = R"({"m":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("v":{"dtype":"F32","shape":[3],"data_offsets":[24,36]},)"
                             R"("cube":{"dtype":"F32","shape":[1,1,1],"data_offsets":[36,40]},)"
                             R"("codes":{"dtype":"I32","shape":[1,1],"data_offsets":[40,44]},)"
                             R"("odd":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[44,45]},)"
                             R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[45,49]},)"
                             R"("none":{"dtype":"BF16","shape":[0,5],"data_offsets":[49,49]}})";
  const std::string data = AsText(values) + AsText(values).substr(0, 12) + std::string(13, '\0');
  // Each header size makes another alignment of the data.
  for (size_t padding = 0; padding < 8; ++padding) {
    WriteModel(temp_ / "m", Safetensors(header + std::string(padding, ' '), data));
    const Checkpoint model = Checkpoint::Open((temp_ / "m").string());
    for (int repeat = 0; repeat < 2; ++repeat) {
      const ConstMatrix m = model.View("m");
      EXPECT_EQ(reinterpret_cast<uintptr_t>(m.data) % 4, 0u);
      EXPECT_EQ(m.rows, 2);
      EXPECT_EQ(m.cols, 3);
      EXPECT_EQ(m.Row<float>(1)[2], 6);
      EXPECT_EQ(model.View("v").rows, 1);
      EXPECT_EQ(model.View("v").Row<float>(0)[2], 3);
      EXPECT_EQ(model.View("none").cols, 5);
      model.Release("m");
    }
    const auto refused = [&](const std::string& name, const std::string& part) {
      ExpectError(ErrorCode::kBadInput, {"tensor '" + name + "'", "byte offset", part},
                  [&] { model.View(name); });
    };
    refused("cube", "[1, 1, 1]");
    refused("scalar", "shape []");
    refused("codes", "is I32");
    refused("odd", "is F8_E5M2");
  }
}

template <typename T>
void TestFindNonFinite(T (*convert)(float)) {
  constexpr int64_t kRows = 3;
  constexpr int64_t kCols = 2049;
  std::vector<T> values(kRows * kCols, convert(-60000.0f));
  EXPECT_EQ(FindNonFinite(ViewOf(values.data(), kRows, kCols)), std::nullopt);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (const int64_t at : {int64_t{6146}, int64_t{4000}, int64_t{1024}, int64_t{0}}) {
      values[static_cast<size_t>(at)] = convert(bad);
      EXPECT_EQ(FindNonFinite(ViewOf(values.data(), kRows, kCols)), at);
    }
    std::fill(values.begin(), values.end(), convert(0.0f));
  }
  // Columns outside a view do not count.
  values[5] = convert(std::numeric_limits<float>::infinity());
  EXPECT_EQ(FindNonFinite(ViewOf(values.data(), kRows, kCols).Cols(6, 10)), std::nullopt);
  EXPECT_EQ(FindNonFinite(ViewOf(values.data(), kRows, kCols).Cols(4, 10)), 1);
  EXPECT_EQ(FindNonFinite(ViewOf(values.data(), 0, kCols)), std::nullopt);
}

TEST(FindNonFinite, AllTypes) {
  TestFindNonFinite<float>([](float x) { return x; });
  TestFindNonFinite<F16>([](float x) { return ToF16(x); });
  TestFindNonFinite<BF16>([](float x) { return ToBF16(x); });
}

}  // namespace
}  // namespace quantmill::test
