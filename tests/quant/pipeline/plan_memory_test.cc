// How plans are made to fit a budget of memory, of the sample model and of shapes whose checkpoints
// are holes. Tests run in the source root.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "quant/pipeline/plan.h"
#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

using Json = nlohmann::json;

struct LlamaShape {
  int64_t hidden, ffn, layers, heads, kv_heads, vocab;
};
constexpr LlamaShape kLlama8B{4096, 14336, 32, 32, 8, 128256};
constexpr LlamaShape kLlama70B{8192, 28672, 80, 64, 8, 128256};

// A Llama checkpoint of BF16 zeros that takes no room: its file is a hole.
class HollowModel {
 public:
  HollowModel(const std::string& name, const LlamaShape& shape)
      : folder_(std::filesystem::path(testing::TempDir()) / name) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    const Json config = {{"architectures", {"LlamaForCausalLM"}},
                         {"model_type", "llama"},
                         {"hidden_size", shape.hidden},
                         {"intermediate_size", shape.ffn},
                         {"num_hidden_layers", shape.layers},
                         {"num_attention_heads", shape.heads},
                         {"num_key_value_heads", shape.kv_heads},
                         {"vocab_size", shape.vocab},
                         {"max_position_embeddings", 8192},
                         {"rms_norm_eps", 1e-5},
                         {"rope_theta", 500000.0},
                         {"hidden_act", "silu"},
                         {"tie_word_embeddings", false},
                         {"torch_dtype", "bfloat16"}};
    std::ofstream(folder_ / "config.json") << config;
    AddTensors(shape);
    const std::string header = header_.dump();
    const uint64_t length = header.size();  // little-endian, as this machine
    std::ofstream file(folder_ / "model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file << header;
    file.close();
    std::filesystem::resize_file(folder_ / "model.safetensors",
                                 sizeof(length) + length + static_cast<uint64_t>(bytes_));
  }
  ~HollowModel() { std::filesystem::remove_all(folder_); }
  HollowModel(const HollowModel&) = delete;
  HollowModel& operator=(const HollowModel&) = delete;

  std::string path() const { return folder_.string(); }

 private:
  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t bytes = 2;
    for (const int64_t size : shape) bytes *= size;
    header_[name + ".weight"] = {
        {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {bytes_, bytes_ + bytes}}};
    bytes_ += bytes;
  }
  void AddTensors(const LlamaShape& s) {
    Add("model.embed_tokens", {s.vocab, s.hidden});
    Add("lm_head", {s.vocab, s.hidden});
    Add("model.norm", {s.hidden});
    const int64_t kv = s.hidden / s.heads * s.kv_heads;
    for (int64_t i = 0; i < s.layers; ++i) {
      const std::string block = "model.layers." + std::to_string(i) + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
        Add(block + norm, {s.hidden});
      }
      for (const char* square : {"q_proj", "o_proj"}) {
        Add(block + "self_attn." + square, {s.hidden, s.hidden});
      }
      for (const char* thin : {"k_proj", "v_proj"}) {
        Add(block + "self_attn." + thin, {kv, s.hidden});
      }
      for (const char* up : {"gate_proj", "up_proj"}) Add(block + "mlp." + up, {s.ffn, s.hidden});
      Add(block + "mlp.down_proj", {s.hidden, s.ffn});
    }
  }

  std::filesystem::path folder_;
  Json header_;
  int64_t bytes_ = 0;
};

BackendInfo Gpu(int64_t memory) {
  BackendInfo info;
  info.name = "cuda";
  info.compute_bf16 = true;
  info.attention_bf16 = true;
  info.memory = memory;
  info.memory_overhead = int64_t{640} << 20;
  return info;
}
BackendInfo Cpu() {
  BackendInfo info;
  info.name = "cpu";
  return info;
}

Recipe RecipeFor(int64_t samples, int64_t sequence_length, const std::string& scheme = "w4a16") {
  Recipe recipe;
  recipe.scheme = MakeScheme(ParseScheme(scheme, ""), "");
  recipe.calibration.samples = samples;
  recipe.calibration.sequence_length = sequence_length;
  return recipe;
}

// The error that planning ends with.
Error Refusal(const ModelSource& source, const Recipe& recipe, const BackendInfo& backend) {
  try {
    PlanQuantization(source, recipe, backend);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kInterrupted, "", "no error"};
}

// "... 87 MiB is the least that would do ..."
int64_t LeastOf(const Error& error) {
  const std::string& message = error.message();
  const size_t end = message.find(" MiB is the least");
  if (end == std::string::npos) return 0;
  const size_t begin = message.rfind(' ', end - 1);
  return std::stoll(message.substr(begin + 1, end - begin)) << 20;
}

constexpr int64_t kGpuBytes = int64_t{16} << 30;

class PlanMemoryTest : public testing::Test {
 protected:
  static Recipe SampleRecipe() { return RecipeFor(128, 512, "w4a16:g64"); }
  // Lowers the budget until it leaves no room for copies beside the work.
  QuantizePlan WithNothingBeside(Recipe& recipe) const {
    for (;;) {
      QuantizePlan plan = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
      if (!plan.loads_ahead && !plan.stream.double_buffered) return plan;
      recipe.max_gpu_mem = plan.memory.gpu_bytes - 1;
    }
  }
  ModelSource source_ = ModelSource::Open("calib_data/sample_model");
};

TEST_F(PlanMemoryTest, F32IsSplitWhereThatIsFasterAndTakesMemory) {
  Recipe recipe = SampleRecipe();
  recipe.compute = Compute::kF32;
  BackendInfo splits = Cpu();
  splits.splits_f32 = true;
  const QuantizePlan whole = PlanQuantization(source_, recipe, Cpu());
  const QuantizePlan split = PlanQuantization(source_, recipe, splits);
  EXPECT_EQ(whole.stream.compute, Compute::kF32);
  EXPECT_EQ(split.stream.compute, Compute::kBF16x3);
  EXPECT_EQ(split.recipe.compute, Compute::kF32);
  EXPECT_GT(split.memory.total_bytes, whole.memory.total_bytes);
  recipe.compute = Compute::kBF16;
  splits.compute_bf16 = true;
  EXPECT_EQ(PlanQuantization(source_, recipe, splits).stream.compute, Compute::kBF16);
}

TEST_F(PlanMemoryTest, GivesUpTheCheapestFirst) {
  Recipe recipe = SampleRecipe();
  const QuantizePlan plenty = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
  EXPECT_TRUE(plenty.stream.keep_mlp && plenty.stream.keep_attention);
  EXPECT_FALSE(plenty.stream.activations_in_host_memory);
  EXPECT_TRUE(plenty.memory.notes.empty());
  EXPECT_TRUE(plenty.loads_ahead);
  EXPECT_EQ(plenty.backend_budget, kGpuBytes / 10 * 9);

  // A budget just below what each plan takes makes the next one.
  std::vector<StreamOptions> streams;
  std::vector<MemoryPlan> memories;
  recipe.max_gpu_mem = WithNothingBeside(recipe).memory.gpu_bytes - 1;
  for (int i = 0; i < 4; ++i) {
    const QuantizePlan plan = WithNothingBeside(recipe);
    EXPECT_EQ(plan.backend_budget, recipe.max_gpu_mem);
    EXPECT_LE(plan.memory.gpu_bytes, recipe.max_gpu_mem);
    streams.push_back(plan.stream);
    memories.push_back(plan.memory);
    recipe.max_gpu_mem = plan.memory.gpu_bytes - 1;
  }
  EXPECT_FALSE(streams[0].keep_mlp);
  EXPECT_TRUE(streams[0].keep_attention);
  EXPECT_FALSE(streams[1].keep_attention);
  EXPECT_FALSE(streams[1].activations_in_host_memory);
  EXPECT_TRUE(streams[2].activations_in_host_memory);
  EXPECT_EQ(streams[2].chunk_tokens, StreamOptions().chunk_tokens);
  EXPECT_EQ(streams[3].chunk_tokens, 512);
  EXPECT_EQ(memories[2].notes.size(), 3u);
  // Two streams of 65,536 tokens moved.
  EXPECT_GE(memories[2].total_bytes - memories[1].total_bytes,
            2 * 65536 * source_.spec().hidden * 4);
  EXPECT_GE(memories[1].gpu_bytes - memories[2].gpu_bytes,
            2 * 65536 * source_.spec().hidden * 4 - (int64_t{32} << 20));

  const Error refused = Refusal(source_, recipe, Gpu(kGpuBytes));
  EXPECT_EQ(refused.code(), ErrorCode::kEnvironment);
  EXPECT_EQ(refused.where(), "--max-gpu-mem");
  EXPECT_GE(LeastOf(refused), memories[3].gpu_bytes);
  recipe.max_gpu_mem = LeastOf(refused);
  EXPECT_NO_THROW(PlanQuantization(source_, recipe, Gpu(kGpuBytes)));
}

// Copies run beside the work where both budgets leave room for it, and what they take is counted.
TEST_F(PlanMemoryTest, SpendsTheRestOnCopiesBesideTheWork) {
  Recipe recipe = SampleRecipe();
  QuantizePlan with = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
  while (!with.stream.activations_in_host_memory || !with.loads_ahead) {
    recipe.max_gpu_mem = with.memory.gpu_bytes - 1;
    with = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
  }
  EXPECT_TRUE(with.stream.double_buffered);
  recipe.max_gpu_mem = with.memory.gpu_bytes - 1;
  const QuantizePlan one = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
  EXPECT_TRUE(one.loads_ahead != one.stream.double_buffered);
  EXPECT_EQ(one.stream.chunk_tokens, with.stream.chunk_tokens);
  EXPECT_LT(one.memory.gpu_bytes, with.memory.gpu_bytes);

  recipe.max_gpu_mem = with.memory.gpu_bytes;
  recipe.max_host_mem = with.memory.total_bytes - 1;
  EXPECT_FALSE(PlanQuantization(source_, recipe, Gpu(kGpuBytes)).loads_ahead);
  EXPECT_FALSE(PlanQuantization(source_, SampleRecipe(), Cpu()).loads_ahead);
}

// Keys and values of a chunk are BF16 where that is the faster attention.
TEST_F(PlanMemoryTest, CachesOfCalibrationAreOfTheTypeThatIsFast) {
  Recipe recipe = SampleRecipe();
  BackendInfo gpu = Gpu(kGpuBytes);
  const QuantizePlan fast = PlanQuantization(source_, recipe, gpu);
  EXPECT_EQ(fast.stream.cache, DType::kBF16);
  gpu.attention_bf16 = false;
  const QuantizePlan exact = PlanQuantization(source_, recipe, gpu);
  EXPECT_EQ(exact.stream.cache, DType::kF32);
  const DecoderSpec& spec = source_.spec();
  EXPECT_GE(exact.memory.gpu_bytes - fast.memory.gpu_bytes,
            2 * spec.kv_heads * spec.head_dim * exact.stream.chunk_tokens * 2);
  gpu.attention_bf16 = true;
  recipe.compute = Compute::kF32;
  EXPECT_EQ(PlanQuantization(source_, recipe, gpu).stream.cache, DType::kF32);
}

TEST_F(PlanMemoryTest, ADeviceThatIsTooSmallIsTold) {
  const Error refused = Refusal(source_, SampleRecipe(), Gpu(int64_t{256} << 20));
  EXPECT_EQ(refused.where(), "--max-gpu-mem");
  EXPECT_NE(refused.message().find("90 % of what the GPU has"), std::string::npos)
      << refused.message();
}

// What goes to host memory is held to the host's budget.
TEST_F(PlanMemoryTest, BothBudgetsHold) {
  Recipe recipe = SampleRecipe();
  QuantizePlan plan = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
  const int64_t host_bytes = plan.memory.total_bytes;
  while (!plan.stream.activations_in_host_memory) {
    recipe.max_gpu_mem = plan.memory.gpu_bytes - 1;
    recipe.max_host_mem = 0;
    plan = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
    recipe.max_host_mem = host_bytes;  // enough for what stays on the GPU
  }
  const Error refused = Refusal(source_, recipe, Gpu(kGpuBytes));
  EXPECT_EQ(refused.code(), ErrorCode::kEnvironment);
  EXPECT_EQ(refused.where(), "--max-host-mem");
  recipe.max_host_mem = LeastOf(refused);
  EXPECT_NO_THROW(PlanQuantization(source_, recipe, Gpu(kGpuBytes)));
}

TEST_F(PlanMemoryTest, HostMemoryHasOneBudget) {
  Recipe recipe = SampleRecipe();
  recipe.max_gpu_mem = kGpuBytes;
  const Error refused = Refusal(source_, recipe, Cpu());
  EXPECT_EQ(refused.code(), ErrorCode::kUsage);
  EXPECT_EQ(refused.where(), "--max-gpu-mem");

  recipe.max_gpu_mem = 0;
  QuantizePlan plan = PlanQuantization(source_, recipe, Cpu());
  EXPECT_EQ(plan.backend_budget, 0);
  EXPECT_TRUE(plan.memory.gpu_items.empty());
  recipe.max_host_mem = LeastOf(Refusal(
      source_,
      [&] {
        Recipe too_little = recipe;
        too_little.max_host_mem = 1 << 20;
        return too_little;
      }(),
      Cpu()));
  plan = PlanQuantization(source_, recipe, Cpu());
  EXPECT_FALSE(plan.stream.activations_in_host_memory);
  EXPECT_EQ(plan.stream.chunk_tokens, 512);
  EXPECT_EQ(plan.backend_budget, recipe.max_host_mem);
}

TEST_F(PlanMemoryTest, RoundingFitsAnywhere) {
  Recipe recipe = SampleRecipe();
  recipe.method = Method::kRtn;
  ASSERT_FALSE(recipe.calibrated());
  recipe.max_gpu_mem = int64_t{700} << 20;
  const QuantizePlan plan = PlanQuantization(source_, recipe, Gpu(kGpuBytes));
  EXPECT_EQ(plan.memory.gpu_items.size(), 2u);
  EXPECT_TRUE(plan.memory.notes.empty());
}

TEST(PlanMemoryOfLargeModels, EightBillionFitEightGigabytes) {
  const HollowModel model("hollow_8b", kLlama8B);
  const ModelSource source = ModelSource::Open(model.path());
  for (const Effort effort : {Effort::kBest, Effort::kFast}) {
    Recipe recipe = RecipeFor(128, 2048);
    recipe.effort = effort;
    recipe.quantize_head = true;
    recipe.max_gpu_mem = 8'000'000'000;
    const QuantizePlan plan = PlanQuantization(source, recipe, Gpu(int64_t{140} << 30));
    EXPECT_LE(plan.memory.gpu_bytes, recipe.max_gpu_mem);
    EXPECT_GT(plan.memory.gpu_bytes, 2'000'000'000);
    // Two streams, of 4.3 GB each, go to host memory; one fits.
    EXPECT_EQ(plan.stream.activations_in_host_memory, effort == Effort::kBest);
    if (effort == Effort::kBest) {
      EXPECT_GE(plan.memory.total_bytes, int64_t{2} * 128 * 2048 * 4096 * 4);
    }
    // On a large GPU everything stays there.
    recipe.max_gpu_mem = 0;
    EXPECT_TRUE(PlanQuantization(source, recipe, Gpu(int64_t{140} << 30)).memory.notes.empty());
  }
}

TEST(PlanMemoryOfLargeModels, SeventyBillionFitTwentyFourGigabytes) {
  const HollowModel model("hollow_70b", kLlama70B);
  const ModelSource source = ModelSource::Open(model.path());
  Recipe recipe = RecipeFor(128, 2048);
  recipe.max_gpu_mem = 24'000'000'000;
  const QuantizePlan plan = PlanQuantization(source, recipe, Gpu(int64_t{140} << 30));
  EXPECT_LE(plan.memory.gpu_bytes, recipe.max_gpu_mem);
  EXPECT_TRUE(plan.stream.activations_in_host_memory);
}

}  // namespace
}  // namespace quantmill
