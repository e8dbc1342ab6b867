#include "quant/model/decoder_spec.h"

namespace quantmill {

const char* NameOf(Site site) {
  switch (site) {
    case Site::kAttentionIn:
      return "attention input";
    case Site::kAttentionOut:
      return "attention output";
    case Site::kMlpIn:
      return "mlp input";
    case Site::kMlpOut:
      return "mlp output";
  }
  return "?";
}

std::vector<const LinearSpec*> BlockSpec::LinearsAt(Site site) const {
  switch (site) {
    case Site::kAttentionIn:
      return {&query, &key, &value};
    case Site::kAttentionOut:
      return {&output};
    case Site::kMlpIn:
      return {&gate, &up};
    case Site::kMlpOut:
      return {&down};
  }
  return {};
}

std::vector<const LinearSpec*> BlockSpec::Linears() const {
  return {&query, &key, &value, &output, &gate, &up, &down};
}

std::vector<const LinearSpec*> DecoderSpec::Linears() const {
  std::vector<const LinearSpec*> all;
  for (const BlockSpec& block : blocks) {
    for (const LinearSpec* linear : block.Linears()) all.push_back(linear);
  }
  return all;
}

}  // namespace quantmill
