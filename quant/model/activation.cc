#include "quant/model/activation.h"

namespace quantmill {

Activation ReadActivation(const ConfigReader& config, const std::string& key,
                          const std::string& fallback) {
  const std::string name = config.TextOr(key, fallback);
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  if (name == "gelu") return Activation::kGelu;
  if (name == "relu") return Activation::kRelu;
  config.Fail(key, "'" + name + "' is not supported");
}

}  // namespace quantmill
