// The main flow on the sample model of calib_data. Tests run in the source root.
#include "quant/pipeline/quantize.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "formats/json.h"
#include "formats/sha256.h"
#include "kernels/core/thread_pool.h"
#include "kernels/select.h"
#include "quant/pipeline/schemes.h"
#include "quant/verify/verify_artifact.h"
#include "tests/support/backends.h"

namespace quantmill::test {
namespace {

constexpr const char* kSample = "calib_data/sample_model";

class QuantizeTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) /
        (std::string("quantize_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Effort `fast` where what `best` adds plays no part: sanitizers make its searches slow.
  static Recipe SmallRecipe(Method method = Method::kGptq, Effort effort = Effort::kFast) {
    Recipe recipe;
    recipe.method = method;
    recipe.effort = effort;
    recipe.scheme.group_size = 64;
    recipe.calibration.samples = 6;
    recipe.calibration.sequence_length = 128;
    return recipe;
  }
  QuantizeReport Run(const Recipe& recipe, const std::string& name, int threads = 2,
                     const QuantizeCallbacks& callbacks = {}, const std::string& model = kSample,
                     bool force = false) {
    BackendRun run(CpuBackend(AvailableIsas().front(), threads));
    const ModelSource source = ModelSource::Open(model);
    return Quantize(run.backend(), run.exec(), source, recipe, (folder_ / name).string(),
                    {.force = force}, callbacks);
  }
  std::set<std::string> Entries() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  // A copy of the sample model that a test may change.
  std::string CopyOfSample() {
    const std::filesystem::path copy = folder_ / "sample";
    std::filesystem::copy(kSample, copy, std::filesystem::copy_options::recursive);
    return copy.string();
  }

  std::filesystem::path folder_;
};

std::map<std::string, std::string> Hashes(const std::filesystem::path& folder) {
  std::map<std::string, std::string> hashes;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    hashes[entry.path().filename().string()] = HashFile(entry.path());
  }
  return hashes;
}

TEST_F(QuantizeTest, SameBytesForAnyThreadsChunksAndRecomputation) {
  Run(SmallRecipe(Method::kGptq, Effort::kBest), "a", 1);
  Run(SmallRecipe(Method::kGptq, Effort::kBest), "b", 3);
  EXPECT_EQ(Hashes(folder_ / "a"), Hashes(folder_ / "b"));
}

TEST_F(QuantizeTest, EveryLayerIsReportedAndBeatsRoundingOnItsInputs) {
  const QuantizeReport gptq = Run(SmallRecipe(), "gptq");
  const QuantizeReport rtn = Run(SmallRecipe(Method::kRtn), "rtn");
  const ModelSource source = ModelSource::Open(kSample);
  ASSERT_EQ(gptq.layers.size(), source.spec().Linears().size());
  ASSERT_EQ(rtn.layers.size(), gptq.layers.size());
  double gptq_sum = 0, rtn_sum = 0;
  for (size_t i = 0; i < gptq.layers.size(); ++i) {
    EXPECT_EQ(gptq.layers[i].name, source.spec().Linears()[i]->name);
    EXPECT_GT(gptq.layers[i].relative_error, 0);
    EXPECT_LT(gptq.layers[i].relative_error, 0.1);
    gptq_sum += gptq.layers[i].relative_error;
    rtn_sum += rtn.layers[i].relative_error;
    // Rounding to nearest is the best in the weights themselves; GPTQ trades that for the outputs.
    EXPECT_GE(gptq.layers[i].weight_error, 0.999 * rtn.layers[i].weight_error);
  }
  EXPECT_LT(gptq_sum, rtn_sum);
}

// Scales of inputs are folded, recorded, and part of what verify compares with.
TEST_F(QuantizeTest, FoldedScalesAreRecordedAndVerified) {
  Recipe recipe = SmallRecipe(Method::kRtn);
  recipe.transform = Transform::kAwq;
  Run(recipe, "out");  // verifies itself
  const std::filesystem::path record = folder_ / "out" / "quantmill.json";
  nlohmann::json json = ReadJsonFile(record);
  ASSERT_FALSE(json.at("folding").empty());
  auto& block = json["folding"].begin().value();
  auto& scales = block.begin().value();
  scales = "4040" + scales.get<std::string>().substr(4);  // 3 for the first channel
  std::ofstream(record) << json;
  ThreadPool pool(2);
  const ModelSource source = ModelSource::Open(kSample);
  EXPECT_FALSE(VerifyArtifact((folder_ / "out").string(), &source, pool, {}).passed());
}

TEST_F(QuantizeTest, StaticInputsGetTheRangeOfTheCalibrationTokens) {
  Recipe recipe = SmallRecipe();
  recipe.transform = Transform::kSmoothQuant;
  recipe.scheme = MakeScheme(ParseScheme("w8a8", "test"), "test");
  recipe.scheme.input.dynamic = false;
  recipe.scheme.input.symmetric = false;
  Run(recipe, "out");
  const ModelSource artifact = ModelSource::Open((folder_ / "out").string());
  for (const LinearSpec* linear : artifact.spec().Linears()) {
    const QuantizedLinear quantized = artifact.ReadQuantized(*linear);
    EXPECT_GT(quantized.input_scale, 1e-4f) << linear->name;
    EXPECT_LT(quantized.input_scale, 10.0f) << linear->name;
  }
}

TEST_F(QuantizeTest, OutputOpensAsAnArtifactWithTheSideFiles) {
  Run(SmallRecipe(), "out");
  const ModelSource artifact = ModelSource::Open((folder_ / "out").string());
  ASSERT_NE(artifact.artifact(), nullptr);
  for (const LinearSpec* linear : artifact.spec().Linears()) {
    EXPECT_TRUE(artifact.SchemeOf(*linear).has_value()) << linear->name;
  }
  EXPECT_FALSE(artifact.SchemeOf(artifact.spec().lm_head).has_value());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(HashFile(folder_ / "out" / name), HashFile(std::filesystem::path(kSample) / name));
  }
}

TEST_F(QuantizeTest, ExistingOutputIsKeptWithoutForce) {
  std::filesystem::create_directories(folder_ / "out");
  std::ofstream(folder_ / "out" / "config.json") << "{}";
  std::ofstream(folder_ / "out" / "older") << "data";
  EXPECT_THROW(Run(SmallRecipe(Method::kRtn), "out"), Error);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out" / "older"));
  Run(SmallRecipe(Method::kRtn), "out", 2, {}, kSample, true);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out" / "older"));
}

TEST_F(QuantizeTest, TheInputIsNeverReplaced) {
  const std::string model = CopyOfSample();
  for (const char* output : {"sample", "sample/", "sample/../sample", "sample/inside", "."}) {
    try {
      Run(SmallRecipe(Method::kRtn), output, 2, {}, model, true);
      FAIL() << output;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage) << error.what();
    }
  }
  EXPECT_EQ(HashFile(folder_ / "sample" / "model.safetensors"),
            HashFile(std::filesystem::path(kSample) / "model.safetensors"));
}

TEST_F(QuantizeTest, InterruptionLeavesNothing) {
  int polls = 0;
  QuantizeCallbacks callbacks;
  callbacks.interrupted = [&] { return ++polls > 7; };
  try {
    Run(SmallRecipe(), "out", 2, callbacks);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInterrupted);
  }
  EXPECT_TRUE(Entries().empty());
}

TEST_F(QuantizeTest, GroupsThatDoNotDivideAreRefusedBeforeWork) {
  Recipe recipe = SmallRecipe();
  recipe.scheme.group_size = 96;  // hidden 256, ffn 768
  bool planned = false;
  QuantizeCallbacks callbacks;
  callbacks.on_plan = [&](const MemoryPlan&) { planned = true; };
  try {
    Run(recipe, "out", 2, callbacks);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    const std::string message = error.what();
    EXPECT_NE(message.find("model.layers.0.self_attn.q_proj"), std::string::npos) << message;
    EXPECT_NE(message.find("128, 64, 32, channel"), std::string::npos) << message;
    EXPECT_EQ(message.find("down_proj"), std::string::npos) << "768 is a multiple of 96";
  }
  EXPECT_FALSE(planned);
  EXPECT_TRUE(Entries().empty());
}

// Overwrites elements of a tensor from element `first` on. F16.
void Overwrite(const std::string& model, const std::string& tensor, int64_t first,
               const std::string& bytes) {
  const uint64_t begin = ModelSource::Open(model).checkpoint().Info(tensor).begin;
  std::fstream file(model + "/model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  uint64_t header_size = 0;
  file.read(reinterpret_cast<char*>(&header_size), 8);
  file.seekp(static_cast<std::streamoff>(8 + header_size + begin) + 2 * first);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
const std::string kNaN16("\x00\x7E", 2);

TEST_F(QuantizeTest, NaNWeightIsNamed) {
  const std::string model = CopyOfSample();
  const std::string name = ModelSource::Open(model).spec().blocks[2].up.name + ".weight";
  Overwrite(model, name, 5, kNaN16);
  for (const Method method : {Method::kRtn, Method::kGptq}) {
    try {
      Run(SmallRecipe(method), "out", 2, {}, model);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_NE(error.where().find(name), std::string::npos) << error.what();
      EXPECT_NE(error.message().find("[0, 5]"), std::string::npos) << error.what();
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  }
}

TEST_F(QuantizeTest, NaNOutsideOfLayersIsNamedBeforeWork) {
  const std::string model = CopyOfSample();
  Overwrite(model, "model.norm.weight", 5, kNaN16);
  QuantizeCallbacks callbacks;
  callbacks.on_progress = [](const QuantizeProgress&) { FAIL() << "work began"; };
  try {
    Run(SmallRecipe(), "out", 2, callbacks, model);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_NE(error.where().find(model), std::string::npos) << error.what();
    EXPECT_NE(error.where().find("model.norm.weight"), std::string::npos) << error.what();
    EXPECT_NE(error.message().find("element 5"), std::string::npos) << error.what();
  }
}

// As pruned models have them. Without a reference the record vouches for it.
TEST_F(QuantizeTest, ALayerOfZeros) {
  const std::string model = CopyOfSample();
  const LinearSpec up = ModelSource::Open(model).spec().blocks[1].up;
  Overwrite(model, up.name + ".weight", 0,
            std::string(static_cast<size_t>(2 * up.out * up.in), '\0'));
  const ModelSource source = ModelSource::Open(model);
  ThreadPool pool(2);
  for (const char* scheme : {"w4a16:g64", "w4a16:g64:asym", "w8a8", "fp8", "nvfp4"}) {
    Recipe recipe = SmallRecipe(Method::kRtn);
    recipe.scheme = MakeScheme(ParseScheme(scheme, "test"), "test");
    Run(recipe, "out", 2, {}, model, true);
    const std::string out = (folder_ / "out").string();
    EXPECT_TRUE(VerifyArtifact(out, &source, pool, {}).passed()) << scheme;
    EXPECT_TRUE(VerifyArtifact(out, nullptr, pool, {}).passed()) << scheme;
  }
  // Equal codes in a file of nobody knows whom are still told.
  std::filesystem::remove(folder_ / "out" / "quantmill.json");
  EXPECT_FALSE(VerifyArtifact((folder_ / "out").string(), nullptr, pool, {}).passed());
}

// "... too little; 87 MiB is the least ..."
int64_t LeastMiB(const std::string& message) {
  const size_t end = message.find(" MiB is the least");
  const size_t begin = message.rfind(' ', end - 1);
  return end == std::string::npos ? 0 : std::stoll(message.substr(begin + 1, end - begin));
}

TEST_F(QuantizeTest, BudgetIsRefusedWithTheLeastThatDoesAndThatGivesTheSameBytes) {
  Recipe recipe = SmallRecipe(Method::kGptq, Effort::kBest);
  recipe.calibration.samples = 40;  // three chunks, so that not keeping activations saves memory
  MemoryPlan plan;
  QuantizeCallbacks callbacks;
  callbacks.on_plan = [&](const MemoryPlan& p) { plan = p; };
  Run(recipe, "plenty", 2, callbacks);
  EXPECT_TRUE(plan.notes.empty());

  recipe.max_host_mem = 1 << 20;
  int64_t least = 0;
  try {
    Run(recipe, "none");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
    least = LeastMiB(error.message());
    ASSERT_GT(least, 0) << error.message();
  }
  // Just below what keeping everything takes; then the least, with one window at a time.
  for (const int64_t budget : {plan.total_bytes - 1, least << 20}) {
    recipe.max_host_mem = budget;
    Run(recipe, "tight", 2, callbacks, kSample, true);
    EXPECT_FALSE(plan.notes.empty());
    EXPECT_LE(plan.total_bytes, budget);
    EXPECT_EQ(HashFile(folder_ / "plenty" / "model.safetensors"),
              HashFile(folder_ / "tight" / "model.safetensors"));
  }
}

TEST_F(QuantizeTest, ScalesOfTheCacheAreWritten) {
  for (const bool per_head : {false, true}) {
    Recipe recipe = SmallRecipe(Method::kRtn);
    recipe.kv = {KvScheme::Type::kFp8, per_head};
    Run(recipe, "out", 2, {}, kSample, true);
    const ModelSource artifact = ModelSource::Open((folder_ / "out").string());
    EXPECT_EQ(artifact.kv_scheme(), recipe.kv);
    // Another cache than the recorded one is found.
    const std::filesystem::path record = folder_ / "out" / "quantmill.json";
    nlohmann::json json = ReadJsonFile(record);
    json["recipe"]["kv_scheme"] = per_head ? "fp8" : "fp8-head";
    std::ofstream(record) << json;
    ThreadPool pool(2);
    const VerifyReport verified = VerifyArtifact((folder_ / "out").string(), nullptr, pool, {});
    ASSERT_EQ(verified.problems.size(), 1u);
    EXPECT_NE(verified.problems[0].what.find("key-value cache"), std::string::npos);
    for (const BlockSpec& block : artifact.spec().blocks) {
      const KvScales scales = artifact.ReadKvScales(block);
      const auto count = static_cast<size_t>(per_head ? artifact.spec().kv_heads : 1);
      ASSERT_EQ(scales.key.size(), count);
      ASSERT_EQ(scales.value.size(), count);
      for (const float scale : scales.key) {  // keys of a trained model lie within some tens
        EXPECT_GT(scale, 1e-4f);
        EXPECT_LT(scale, 1.0f);
      }
    }
  }
}

// What `effort` best adds lowers the error of every layer's solve.
TEST_F(QuantizeTest, BestEffortBeatsFast) {
  Recipe recipe = SmallRecipe(Method::kGptq, Effort::kBest);
  const QuantizeReport best = Run(recipe, "best");
  recipe.effort = Effort::kFast;
  const QuantizeReport fast = Run(recipe, "fast");
  double best_strength = 0;
  double best_error = 0, fast_error = 0;
  for (size_t i = 0; i < best.layers.size(); ++i) {
    EXPECT_LT(best.layers[i].relative_error, best.layers[i].rounded_error);
    EXPECT_LT(fast.layers[i].relative_error, fast.layers[i].rounded_error);
    EXPECT_EQ(fast.layers[i].target_strength, 0);
    best_strength = std::max(best_strength, best.layers[i].target_strength);
    best_error += best.layers[i].relative_error;
    fast_error += fast.layers[i].relative_error;
  }
  EXPECT_GT(best_strength, 0.05);  // so few tokens support little
  EXPECT_LT(best_error, 0.9 * fast_error);
}

// Fewer tokens than inputs and no damping: no factorization succeeds, and layers are rounded. That
// is told, and by default not accepted.
TEST_F(QuantizeTest, FallbacksAreCountedAndRefused) {
  Recipe recipe = SmallRecipe();
  recipe.calibration.samples = 2;
  recipe.calibration.sequence_length = 32;
  recipe.damp_percent = 0;
  try {
    Run(recipe, "out");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kVerification);
    EXPECT_NE(error.where().find("model.layers."), std::string::npos) << error.what();
  }
  EXPECT_TRUE(Entries().empty());
  recipe.max_fallbacks = 1000;
  const QuantizeReport report = Run(recipe, "out");
  int64_t fallbacks = 0;
  int64_t short_calibrations = 0;
  for (const Event& event : report.events) {
    fallbacks += event.is_fallback ? 1 : 0;
    if (event.kind != "short_calibration") continue;
    ++short_calibrations;
    EXPECT_NE(event.what.find("--samples 24"), std::string::npos) << event.what;  // 768 / 32
  }
  EXPECT_GT(fallbacks, 0);
  EXPECT_EQ(short_calibrations, 1);
}

TEST_F(QuantizeTest, QuantizedInputIsRefused) {
  Run(SmallRecipe(Method::kRtn), "once");
  EXPECT_THROW(Run(SmallRecipe(Method::kRtn), "twice", 2, {}, (folder_ / "once").string()), Error);
}

TEST_F(QuantizeTest, AsymmetricEightBitAndPerChannel) {
  for (const bool symmetric : {true, false}) {
    for (const int bits : {4, 8}) {
      for (const int64_t group : {int64_t{32}, QuantScheme::kPerChannel}) {
        Recipe recipe = SmallRecipe(Method::kRtn);
        recipe.scheme.bits = bits;
        recipe.scheme.symmetric = symmetric;
        recipe.scheme.group_size = group;
        const QuantizeReport report = Run(recipe, "out", 2, {}, kSample, true);
        for (const LayerResult& layer : report.layers) {
          EXPECT_LT(layer.weight_error, bits == 8 ? 1e-3 : 0.1) << layer.name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace quantmill::test
