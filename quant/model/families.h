// The registry of model families: an explicit list, one file a family.
#ifndef QUANTMILL_QUANT_MODEL_FAMILIES_H_
#define QUANTMILL_QUANT_MODEL_FAMILIES_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

struct Family {
  std::string_view name;          // "llama"
  std::string_view architecture;  // config.json architectures[0]
  DecoderSpec (*describe)(const ConfigReader& config);
};

// All families, in the order `quantmill --version` prints them.
const std::vector<Family>& Families();

// The description that config.json gives. `where` is the path for errors. An architecture that is
// not in the registry is Error(kBadInput) naming it and those that are.
DecoderSpec DescribeDecoder(const nlohmann::json& config, const std::string& where);
// The same of a checkpoint, with the names of its tensors: files saved from a model without its
// head lack the prefix that the others' names have ("model.", "transformer.").
DecoderSpec DescribeDecoder(const Checkpoint& checkpoint);

// One per family, defined in <family>.cc.
DecoderSpec DescribeGemma2(const ConfigReader& config);
DecoderSpec DescribeGemma3(const ConfigReader& config);
DecoderSpec DescribeLlama(const ConfigReader& config);
DecoderSpec DescribeMistral(const ConfigReader& config);
DecoderSpec DescribePhi3(const ConfigReader& config);
DecoderSpec DescribeQwen2(const ConfigReader& config);
DecoderSpec DescribeQwen3(const ConfigReader& config);
DecoderSpec DescribeOpt(const ConfigReader& config);
DecoderSpec DescribeGpt2(const ConfigReader& config);
DecoderSpec DescribeGptNeox(const ConfigReader& config);
DecoderSpec DescribeFalcon(const ConfigReader& config);
DecoderSpec DescribeBloom(const ConfigReader& config);
DecoderSpec DescribeMixtral(const ConfigReader& config);
DecoderSpec DescribeQwen2Moe(const ConfigReader& config);
DecoderSpec DescribeQwen3Moe(const ConfigReader& config);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_FAMILIES_H_
