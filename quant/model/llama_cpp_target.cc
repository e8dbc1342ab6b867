#include "quant/model/llama_cpp_target.h"

#include <string>
#include <utility>

#include "quant/model/gguf_layout.h"

namespace quantmill {
namespace {

// --gguf-type of about as many bits, and of the same kind of levels.
std::string_view NearestType(const QuantScheme& scheme) {
  if (scheme.bits > 6) return "q8_0";
  if (scheme.bits == 6) return "q6_k";
  if (scheme.bits == 5) return scheme.symmetric ? "q5_0" : "q5_k";
  return scheme.symmetric && scheme.code_type == CodeType::kInt ? "q4_0" : "q4_k_m";
}

}  // namespace

TargetVerdict CheckLlamaCpp(const ServingTarget& target, const DecoderSpec& spec,
                            std::string_view format, std::span<const QuantizedModule> modules) {
  TargetVerdict verdict;
  const auto refuse = [&](std::string what) { verdict.refusals.push_back({"", std::move(what)}); };
  if (!HasGgufLayout(spec.architecture)) {
    refuse("llama.cpp has no architecture for " + spec.architecture + "; --target transformers");
  } else if (!format.starts_with("gguf")) {
    std::string what = "llama.cpp reads gguf files alone, not " + std::string(format) +
                       ": quantize with --format gguf";
    if (!modules.empty()) {
      what += " --gguf-type " + std::string(NearestType(modules.front().scheme));
    }
    refuse(std::move(what));
  }
  if (target.tensor_parallel > 1) {
    refuse("llama.cpp splits any file over its devices (--split-mode); leave out --tp");
  }
  return verdict;
}

}  // namespace quantmill
