// What the stacks that serve models can load: their rules of format, scheme, shape and tensor
// parallelism, checked before anything is calibrated (formats.md sections 2.6, 3.4, 4.5, 5).
#ifndef QUANTMILL_QUANT_MODEL_SERVING_TARGET_H_
#define QUANTMILL_QUANT_MODEL_SERVING_TARGET_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/artifact.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

struct ServingTarget {
  enum class Stack : uint8_t { kNone, kVllm, kSglang, kTransformers, kLlamaCpp };
  Stack stack = Stack::kNone;
  int64_t tensor_parallel = 1;  // processes that share each layer; at least 1
  friend bool operator==(const ServingTarget&, const ServingTarget&) = default;
};

// "vllm", "sglang", "transformers", "llama.cpp"; kNone has no name.
std::string_view NameOf(ServingTarget::Stack stack);
// The inverse. Throws Error(kUsage, where) listing the names.
ServingTarget::Stack StackNamed(const std::string& name, const std::string& where);

// One rule, and the first layer it concerns.
struct TargetFinding {
  std::string where;  // layer; empty: the whole model
  std::string what;   // with the number of other layers, and what would do instead
};

struct TargetVerdict {
  std::vector<TargetFinding> refusals;  // it would not load, or not as meant
  std::vector<TargetFinding> notes;     // it loads with recent releases, or slowly
};

// `modules`: the quantized ones; other linears are dense. Each rule is told once. Nothing for
// kNone. `format`: as --format names it, or as a reader of the file does.
TargetVerdict CheckServingTarget(const ServingTarget& target, const DecoderSpec& spec,
                                 std::string_view format, std::span<const QuantizedModule> modules,
                                 const KvScheme& kv);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_SERVING_TARGET_H_
