// Rules of the stacks that serve models, on shapes worked out by hand.
#include "quant/model/serving_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Stack = ServingTarget::Stack;

QuantScheme Integers(int bits, int64_t group = 128, bool symmetric = true) {
  return {bits, symmetric, group, DType::kF16};
}
QuantScheme Fp8Block() {
  QuantScheme scheme{8, true, 128, DType::kF32, CodeType::kFp8, 128};
  scheme.input.type = InputScheme::Type::kFp8;
  scheme.input.group_size = 128;
  return scheme;
}

// Two blocks, 8 heads of 128 (2 of keys and values), hidden 1024, ffn 2816 = 22 * 128.
class ServingTargetTest : public testing::Test {
 protected:
  ServingTargetTest() {
    spec_.hidden = 1024;
    spec_.heads = 8;
    spec_.kv_heads = 2;
    spec_.head_dim = 128;
    spec_.ffn = 2816;
    for (int i = 0; i < 2; ++i) {
      BlockSpec block;
      block.prefix = "b" + std::to_string(i);
      const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
        LinearSpec spec;
        spec.name = block.prefix + "." + name;
        spec.out = out;
        spec.in = in;
        return spec;
      };
      block.query = linear("q", 1024, 1024);
      block.key = linear("k", 256, 1024);
      block.value = linear("v", 256, 1024);
      block.output = linear("o", 1024, 1024);
      block.gate = linear("gate", 2816, 1024);
      block.up = linear("up", 2816, 1024);
      block.down = linear("down", 1024, 2816);
      spec_.blocks.push_back(block);
    }
  }

  TargetVerdict Verdict(Stack stack, const QuantScheme& scheme, int64_t ranks = 1,
                        std::string_view format = "compressed-tensors", const KvScheme& kv = {}) {
    std::vector<QuantizedModule> modules;
    for (const LinearSpec* linear : spec_.Linears()) {
      modules.push_back({linear->name, scheme, linear->out, linear->in});
    }
    return CheckServingTarget({stack, ranks}, spec_, format, modules, kv);
  }
  static void ExpectRefused(const TargetVerdict& verdict, const std::string& where,
                            const std::string& what) {
    ASSERT_EQ(verdict.refusals.size(), 1u);
    EXPECT_EQ(verdict.refusals[0].where, where);
    EXPECT_THAT(verdict.refusals[0].what, HasSubstr(what));
  }

  DecoderSpec spec_;
};

TEST_F(ServingTargetTest, UsualSchemesPass) {
  for (const Stack stack : {Stack::kVllm, Stack::kSglang, Stack::kTransformers}) {
    for (const QuantScheme& scheme :
         {Integers(4), Integers(8, QuantScheme::kPerChannel), Fp8Block()}) {
      const TargetVerdict verdict = Verdict(stack, scheme);
      EXPECT_THAT(verdict.refusals, IsEmpty());
      EXPECT_THAT(verdict.notes, IsEmpty());
    }
  }
  EXPECT_THAT(Verdict(Stack::kNone, Integers(3, 100, false), 7).refusals, IsEmpty());
  EXPECT_THAT(Verdict(Stack::kTransformers, Integers(3, 32, false)).refusals, IsEmpty());
}

TEST_F(ServingTargetTest, WidthsWithoutAKernelAreNamedOnce) {
  const TargetVerdict verdict = Verdict(Stack::kVllm, Integers(3));
  ExpectRefused(verdict, "b0.q", "integers of 3 bits; w4a16 and w8a16 run (and 13 more like it)");
  ExpectRefused(Verdict(Stack::kSglang, Integers(4, 16)), "b0.q", "--group-size 128 runs");
}

TEST_F(ServingTargetTest, TransposedWeights) {
  for (BlockSpec& block : spec_.blocks) block.down.transposed = true;
  QuantScheme rounded_inputs = Integers(8, QuantScheme::kPerChannel);
  rounded_inputs.input.type = InputScheme::Type::kInt8;
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4)).refusals, IsEmpty());
  ExpectRefused(Verdict(Stack::kVllm, rounded_inputs), "b0.down", "transposed");
  ExpectRefused(Verdict(Stack::kTransformers, Integers(4)), "b0.down", "--format gptq");
  EXPECT_THAT(Verdict(Stack::kTransformers, Integers(4), 1, "gptq").refusals, IsEmpty());
}

TEST_F(ServingTargetTest, ZeroPoints) {
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4, 128, false)).refusals, IsEmpty());
  EXPECT_THAT(Verdict(Stack::kSglang, Integers(4, 128, false), 1, "awq").refusals, IsEmpty());
  ExpectRefused(Verdict(Stack::kVllm, Integers(8, 128, false)), "b0.q", "8 bits with zero points");
  ExpectRefused(Verdict(Stack::kVllm, Integers(4, 128, false), 1, "gptq"), "b0.q", "--format awq");
  ExpectRefused(Verdict(Stack::kSglang, Integers(4, 128, false)), "b0.q", "--asymmetric");
}

// down has 2816 inputs: 1408 = 11 * 128 on two processes, 704 = 5.5 * 128 on four.
TEST_F(ServingTargetTest, TensorParallelism) {
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4), 2).refusals, IsEmpty());
  ExpectRefused(Verdict(Stack::kVllm, Integers(4), 4), "b0.down",
                "704 inputs on a process are no multiple of the group size 128; --group-size 64");
  const TargetVerdict padded = Verdict(Stack::kVllm, Integers(4, 64), 4);
  EXPECT_THAT(padded.refusals, IsEmpty());
  ASSERT_EQ(padded.notes.size(), 1u);
  EXPECT_THAT(padded.notes[0].what, HasSubstr("1024 outputs by 704 inputs"));
  ExpectRefused(Verdict(Stack::kSglang, Integers(4, 64), 4), "b0.down", "Marlin");
  // Heads of keys and values are repeated on four processes, which three cannot do.
  const TargetVerdict three = Verdict(Stack::kVllm, Integers(4), 3);
  EXPECT_EQ(three.refusals.front().where, "");
  EXPECT_THAT(three.refusals.front().what, HasSubstr("8 heads and 2 key-value heads"));
}

// gate has 704 outputs on four processes, and down as many inputs: no blocks of 128.
TEST_F(ServingTargetTest, BlocksOfFp8MustNotSpanProcesses) {
  EXPECT_THAT(Verdict(Stack::kVllm, Fp8Block(), 2, "fp8").refusals, IsEmpty());
  std::vector<std::string> where;
  for (const TargetFinding& finding : Verdict(Stack::kVllm, Fp8Block(), 4, "fp8").refusals) {
    where.push_back(finding.where);
    EXPECT_THAT(finding.what, HasSubstr("704"));
  }
  EXPECT_THAT(where, ElementsAre("b0.gate", "b0.down"));
}

TEST_F(ServingTargetTest, FusedLayersNeedOneScheme) {
  std::vector<QuantizedModule> modules;
  for (const LinearSpec* linear : spec_.Linears()) {
    const bool is_value = linear->name == "b1.v";
    modules.push_back({linear->name, Integers(is_value ? 8 : 4), linear->out, linear->in});
  }
  const TargetVerdict verdict =
      CheckServingTarget({Stack::kVllm, 1}, spec_, "compressed-tensors", modules, {});
  ExpectRefused(verdict, "b1.v", "different schemes");
  EXPECT_THAT(
      CheckServingTarget({Stack::kTransformers, 1}, spec_, "compressed-tensors", modules, {})
          .refusals,
      IsEmpty());
}

// Four experts of 768 in the second block, as Qwen names them.
class MixtureTargetTest : public ServingTargetTest {
 protected:
  MixtureTargetTest() {
    BlockSpec& block = spec_.blocks[1];
    for (LinearSpec* linear : {&block.gate, &block.up, &block.down}) *linear = {};
    block.mixture.router = {"b1.gate", 4, 1024, false};
    block.mixture.top_k = 2;
    for (int e = 0; e < 4; ++e) {
      const std::string name = "b1.experts." + std::to_string(e);
      block.mixture.experts.push_back({{name + ".gate_proj", 768, 1024, false},
                                       {name + ".up_proj", 768, 1024, false},
                                       {name + ".down_proj", 1024, 768, false}});
    }
  }
  // All of `scheme` but one layer.
  TargetVerdict WithOneOf(Stack stack, const std::string& name, const QuantScheme& other) {
    std::vector<QuantizedModule> modules;
    for (const LinearSpec* linear : spec_.Linears()) {
      const bool is_other = linear->name == name;
      modules.push_back({linear->name, is_other ? other : Integers(4), linear->out, linear->in});
    }
    return CheckServingTarget({stack, 1}, spec_, "compressed-tensors", modules, {});
  }
};

TEST_F(MixtureTargetTest, ExpertsOfABlockNeedOneScheme) {
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4)).refusals, IsEmpty());
  ExpectRefused(WithOneOf(Stack::kVllm, "b1.experts.2.down_proj", Integers(8)),
                "b1.experts.2.down_proj", "all experts of a block");
  EXPECT_THAT(WithOneOf(Stack::kTransformers, "b1.experts.2.down_proj", Integers(8)).refusals,
              IsEmpty());
  EXPECT_THAT(WithOneOf(Stack::kVllm, "b0.down", Integers(8)).refusals, IsEmpty());
}

TEST_F(MixtureTargetTest, ExpertsAreSymmetric) {
  const TargetVerdict verdict = Verdict(Stack::kVllm, Integers(4, 128, false));
  ExpectRefused(verdict, "b1.experts.0.gate_proj", "symmetric groups alone");
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4, 128, false), 1, "awq").refusals, IsEmpty());
}

// vLLM asks for the scheme of "experts.0.gate_proj" in a file of Mixtral too.
TEST_F(MixtureTargetTest, ExpertsOfOtherNamesNeedAUniformFile) {
  for (MlpSpec& expert : spec_.blocks[1].mixture.experts) {
    expert.gate.name.replace(expert.gate.name.find("gate_proj"), 9, "w1");
  }
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4)).refusals, IsEmpty());
  ExpectRefused(WithOneOf(Stack::kVllm, "b0.down", Integers(8)), "b1.experts.0.w1",
                "all quantized layers have one");
}

// 768 = 6 * 128: three processes hold 256 of an expert's inputs each, two 384, four 192.
TEST_F(MixtureTargetTest, ExpertsAreSplit) {
  EXPECT_THAT(Verdict(Stack::kVllm, Integers(4), 2).refusals, IsEmpty());
  const TargetVerdict four = Verdict(Stack::kVllm, Integers(4), 4);
  ASSERT_EQ(four.refusals.size(), 2u) << "b0.down too";
  EXPECT_EQ(four.refusals[1].where, "b1.experts.0.down_proj");
  EXPECT_THAT(four.refusals[1].what, HasSubstr("192 inputs on a process"));
}

TEST_F(ServingTargetTest, FilesAndCachesOfSomeStacksAlone) {
  QuantScheme fixed{8,           true,           QuantScheme::kPerChannel,
                    DType::kF32, CodeType::kFp8, QuantScheme::kAllRows};
  fixed.input.type = InputScheme::Type::kFp8;
  fixed.input.dynamic = false;
  ExpectRefused(Verdict(Stack::kTransformers, fixed, 1, "fp8"), "b0.q", "dynamic inputs");
  EXPECT_THAT(Verdict(Stack::kVllm, fixed, 1, "fp8").refusals, IsEmpty());
  const KvScheme heads{KvScheme::Type::kFp8, true};
  ExpectRefused(Verdict(Stack::kSglang, Integers(4), 1, "compressed-tensors", heads), "",
                "--kv-scheme fp8");
  EXPECT_EQ(Verdict(Stack::kVllm, Integers(4), 1, "gptq_v2").notes.size(), 1u);
}

// llama.cpp reads gguf files, and they are for it alone.
TEST_F(ServingTargetTest, LlamaCpp) {
  spec_.architecture = "Qwen3ForCausalLM";
  const TargetVerdict fits = Verdict(Stack::kLlamaCpp, Integers(4, 32), 1, "gguf Q4_0");
  EXPECT_THAT(fits.refusals, IsEmpty());
  EXPECT_THAT(fits.notes, IsEmpty());
  ExpectRefused(Verdict(Stack::kLlamaCpp, Integers(4, 32), 2, "gguf"), "", "leave out --tp");
  ExpectRefused(Verdict(Stack::kVllm, Integers(4, 32), 1, "gguf"), "", "--target llama.cpp");
}

TEST_F(ServingTargetTest, LlamaCppNamesTheNearestBlocks) {
  spec_.architecture = "LlamaForCausalLM";
  const auto expect = [&](const QuantScheme& scheme, const std::string& type) {
    ExpectRefused(Verdict(Stack::kLlamaCpp, scheme), "", "--format gguf --gguf-type " + type);
  };
  expect(Integers(3), "q4_0");
  expect(Integers(4), "q4_0");
  expect(Integers(4, 128, false), "q4_k_m");
  expect(Integers(5), "q5_0");
  expect(Integers(5, 64, false), "q5_k");
  expect(Integers(6), "q6_k");
  expect(Integers(8), "q8_0");
  expect(Fp8Block(), "q8_0");
}

TEST_F(ServingTargetTest, LlamaCppNeedsAFamilyOfItsOwn) {
  spec_.architecture = "OPTForCausalLM";
  ExpectRefused(Verdict(Stack::kLlamaCpp, Integers(4), 1, "gguf"), "", "no architecture for OPT");
  spec_.architecture = "MixtralForCausalLM";
  EXPECT_TRUE(Verdict(Stack::kLlamaCpp, Integers(4), 1, "gguf").refusals.empty());
}

TEST(ServingTarget, Names) {
  EXPECT_EQ(StackNamed("vllm", "x"), Stack::kVllm);
  EXPECT_EQ(NameOf(Stack::kTransformers), "transformers");
  EXPECT_EQ(StackNamed("llama.cpp", "x"), Stack::kLlamaCpp);
  try {
    StackNamed("ollama", "--target");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("vllm, sglang, transformers, llama.cpp"));
  }
}

}  // namespace
}  // namespace quantmill::test
