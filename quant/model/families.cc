#include "quant/model/families.h"

#include "kernels/core/error.h"

namespace quantmill {

const std::vector<Family>& Families() {
  static const std::vector<Family> families = {
      {"gemma2", "Gemma2ForCausalLM", DescribeGemma2},
      {"gemma3", "Gemma3ForCausalLM", DescribeGemma3},
      {"llama", "LlamaForCausalLM", DescribeLlama},
      {"mistral", "MistralForCausalLM", DescribeMistral},
      {"phi3", "Phi3ForCausalLM", DescribePhi3},
      {"qwen2", "Qwen2ForCausalLM", DescribeQwen2},
      {"qwen3", "Qwen3ForCausalLM", DescribeQwen3},
      {"opt", "OPTForCausalLM", DescribeOpt},
      {"gpt2", "GPT2LMHeadModel", DescribeGpt2},
      {"gpt_neox", "GPTNeoXForCausalLM", DescribeGptNeox},
      {"falcon", "FalconForCausalLM", DescribeFalcon},
      {"bloom", "BloomForCausalLM", DescribeBloom},
      {"mixtral", "MixtralForCausalLM", DescribeMixtral},
      {"qwen2_moe", "Qwen2MoeForCausalLM", DescribeQwen2Moe},
      {"qwen3_moe", "Qwen3MoeForCausalLM", DescribeQwen3Moe},
  };
  return families;
}

DecoderSpec DescribeDecoder(const nlohmann::json& config, const std::string& where) {
  const ConfigReader reader(config, where);
  if (!config.is_object()) throw Error(ErrorCode::kBadInput, where, "not a JSON object");
  if (!reader.Has("architectures") || !config.at("architectures").is_array() ||
      config.at("architectures").empty() || !config.at("architectures")[0].is_string()) {
    reader.Fail("architectures", "missing: it names the model class, e.g. [\"LlamaForCausalLM\"]");
  }
  const auto architecture = config.at("architectures")[0].get<std::string>();
  std::string known;
  for (const Family& family : Families()) {
    if (family.architecture == architecture) {
      DecoderSpec spec = family.describe(reader);
      spec.architecture = architecture;
      return spec;
    }
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  throw Error(ErrorCode::kBadInput, where,
              "architecture '" + architecture + "' is not supported; supported: " + known);
}

DecoderSpec DescribeDecoder(const Checkpoint& checkpoint) {
  DecoderSpec spec = DescribeDecoder(checkpoint.config(), checkpoint.PathOf("config.json"));
  if (!spec.base_prefix.empty() && !checkpoint.Has(spec.embedding) &&
      checkpoint.Has(spec.embedding.substr(spec.base_prefix.size()))) {
    spec.DropBasePrefix();
  }
  return spec;
}

}  // namespace quantmill
