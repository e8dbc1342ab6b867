// The whole `quantize --device cuda`, the device being the host executor: what it writes is as good
// as what the CPU writes. Tests run in the source root.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "formats/sha256.h"
#include "kernels/core/error.h"
#include "quant/pipeline/plan.h"
#include "quant/pipeline/quantize.h"
#include "quant/pipeline/schemes.h"
#include "tests/quant/runtime/golden_copy.h"
#include "tests/support/backends.h"

namespace quantmill::test {
namespace {

QuantizeReport Quantized(const std::string& backend, const std::string& model, const Recipe& recipe,
                         const std::string& output) {
  BackendRun run(MakeBackend(backend, 2));
  const ModelSource source = ModelSource::Open(model);
  return Quantize(run.backend(), run.exec(), source, recipe, output, {.force = true}, {});
}

// The errors of all layers' outputs. Sums in another order move a weight across the middle between
// two codes now and then, and the solver carries that on to later columns; the error that is left
// is the same.
double ErrorOf(const QuantizeReport& report) {
  double sum = 0;
  for (const auto& layer : report.layers) sum += layer.relative_error;
  return sum;
}

struct Case {
  const char* name;
  const char* golden;
  const char* scheme;
  Method method;
  Transform transform;
  // Also with products of BF16, which are the same ones for all methods, but for rounded inputs.
  bool bf16 = false;
};

class CudaPipelineTest : public testing::TestWithParam<Case> {};

TEST_P(CudaPipelineTest, IsAsGoodAsOnTheCpu) {
  constexpr int64_t kWindows = 6;
  constexpr int64_t kWindow = 32;
  const GoldenCopy copy(std::string("cuda_") + GetParam().name, GetParam().golden,
                        (kWindows + 4) * kWindow);
  for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
    Recipe recipe;
    recipe.method = GetParam().method;
    recipe.transform = GetParam().transform;
    recipe.scheme = MakeScheme(ParseScheme(GetParam().scheme, "test"), "test");
    recipe.compute = compute;
    recipe.calibration.text = copy.text();
    recipe.calibration.samples = kWindows;
    recipe.calibration.sequence_length = kWindow;
    const std::string cpu = "cpu_" + AvailableIsas().front();
    if (compute == Compute::kBF16 && !GetParam().bf16) continue;
    if (compute == Compute::kBF16 && !MakeBackend(cpu, 1)->Info().compute_bf16) continue;
    const double want = ErrorOf(Quantized(cpu, copy.model(), recipe, copy.output("cpu")));
    const double got = ErrorOf(Quantized("cuda_host", copy.model(), recipe, copy.output("cuda")));
    EXPECT_GT(want, 0);
    // In BF16, attention rounds its weights and keys too: of inputs that differ by that, a few
    // tokens give statistics that differ more.
    EXPECT_NEAR(got, want, (compute == Compute::kBF16 ? 0.04 : 0.02) * want);
  }
}

// Plans that take less of the device's memory, down to the least, as its limit, which the backend
// holds them to.
TEST_P(CudaPipelineTest, KeepsTheLeastBudgetWithTheSameBytes) {
  constexpr int64_t kWindows = 3;
  constexpr int64_t kWindow = 32;
  const GoldenCopy copy(std::string("cuda_memory_") + GetParam().name, GetParam().golden,
                        (kWindows + 4) * kWindow);
  Recipe recipe;
  recipe.method = GetParam().method;
  recipe.transform = GetParam().transform;
  recipe.scheme = MakeScheme(ParseScheme(GetParam().scheme, "test"), "test");
  recipe.compute = Compute::kF32;
  recipe.calibration.text = copy.text();
  recipe.calibration.samples = kWindows;
  recipe.calibration.sequence_length = kWindow;
  const QuantizeReport plenty = Quantized("cuda_host", copy.model(), recipe, copy.output("plenty"));
  EXPECT_GT(plenty.peak_gpu_bytes, 0);
  EXPECT_LE(plenty.peak_gpu_bytes, plenty.planned_gpu_bytes);

  const ModelSource source = ModelSource::Open(copy.model());
  const BackendInfo info = MakeBackend("cuda_host", 1)->Info();
  int64_t least = plenty.planned_gpu_bytes;
  int64_t buffered = 0;  // of the first that lets activations come and go in buffers
  for (bool fits = true; fits;) {
    recipe.max_gpu_mem = least - 1;
    try {
      const QuantizePlan plan = PlanQuantization(source, recipe, info);
      least = plan.memory.gpu_bytes;
      if (buffered == 0 && plan.stream.double_buffered) buffered = least;
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), "--max-gpu-mem");
      fits = false;
    }
  }
  EXPECT_LT(least, plenty.planned_gpu_bytes);
  EXPECT_LT(least, buffered);
  for (const int64_t budget : {least, buffered}) {
    // A search takes long, and has done with its activations when they begin to move.
    if (budget == buffered && recipe.transform != Transform::kNone) continue;
    recipe.max_gpu_mem = budget;
    const QuantizeReport tight = Quantized("cuda_host", copy.model(), recipe, copy.output("tight"));
    EXPECT_LE(tight.peak_gpu_bytes, budget);
    EXPECT_EQ(HashFile(copy.output("tight") + "/model.safetensors"),
              HashFile(copy.output("plenty") + "/model.safetensors"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Methods, CudaPipelineTest,
    testing::Values(Case{"gptq", "llama_gqa", "w4a16:g16", Method::kGptq, Transform::kNone, true},
                    Case{"asymmetric", "qwen2", "w4a16:g16:asym", Method::kGptq, Transform::kNone},
                    Case{"awq", "llama_gqa", "w4a16:g16:asym", Method::kRtn, Transform::kAwq},
                    Case{"w8a8", "llama_gqa", "w8a8", Method::kGptq, Transform::kSmoothQuant, true},
                    Case{"fp8", "gpt2", "fp8", Method::kGptq, Transform::kNone},
                    Case{"nvfp4", "llama_gqa", "nvfp4", Method::kGptq, Transform::kNone},
                    Case{"mixture", "mixtral", "w4a16:g16", Method::kGptq, Transform::kNone}),
    [](const auto& test) { return std::string(test.param.name); });

Recipe SampleRecipe(Method method) {
  Recipe recipe;
  recipe.method = method;
  recipe.effort = Effort::kFast;
  recipe.scheme.group_size = 64;
  recipe.calibration.samples = 2;
  recipe.calibration.sequence_length = 64;
  recipe.compute = Compute::kF32;
  return recipe;
}

class CudaSampleTest : public testing::Test {
 protected:
  static constexpr const char* kSample = "calib_data/sample_model";

  CudaSampleTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                ("cuda_sample_" + std::to_string(getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~CudaSampleTest() override { std::filesystem::remove_all(folder_); }
  QuantizeReport RunOn(const std::string& backend, const Recipe& recipe) const {
    return Quantized(backend, kSample, recipe, Output(backend));
  }
  std::string Output(const std::string& backend) const { return (folder_ / backend).string(); }

 private:
  std::filesystem::path folder_;
};

TEST_F(CudaSampleTest, RoundingGivesTheCodesOfTheCpu) {
  RunOn("cpu_generic", SampleRecipe(Method::kRtn));
  RunOn("cuda_host", SampleRecipe(Method::kRtn));
  const ModelSource cpu = ModelSource::Open(Output("cpu_generic"));
  const ModelSource cuda = ModelSource::Open(Output("cuda_host"));
  for (const LinearSpec* linear : cpu.spec().Linears()) {
    EXPECT_EQ(cpu.ReadQuantized(*linear).codes, cuda.ReadQuantized(*linear).codes) << linear->name;
  }
}

TEST_F(CudaSampleTest, GptqIsAsGoodAsOnTheCpu) {
  const double want = ErrorOf(RunOn("cpu_generic", SampleRecipe(Method::kGptq)));
  EXPECT_NEAR(ErrorOf(RunOn("cuda_host", SampleRecipe(Method::kGptq))), want, 0.02 * want);
}

}  // namespace
}  // namespace quantmill::test
