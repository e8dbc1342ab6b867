#include "quant/model/serving_target.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "kernels/core/error.h"
#include "quant/model/llama_cpp_target.h"

namespace quantmill {
namespace {

using Stack = ServingTarget::Stack;

constexpr std::array<std::pair<Stack, std::string_view>, 4> kStacks = {
    {{Stack::kVllm, "vllm"},
     {Stack::kSglang, "sglang"},
     {Stack::kTransformers, "transformers"},
     {Stack::kLlamaCpp, "llama.cpp"}}};

// Thread tiles of the Marlin kernels, which run weight-only integers.
constexpr int64_t kTileOut = 64;
constexpr int64_t kTileIn = 128;
constexpr int64_t kFp8Block = 128;

// Findings by rule: the first layer, and how many others.
class Findings {
 public:
  void Add(const std::string& where, std::string what) {
    const auto found = std::find_if(rules_.begin(), rules_.end(),
                                    [&](const Rule& rule) { return rule.what == what; });
    if (found == rules_.end()) {
      rules_.push_back({where, std::move(what), 0});
    } else {
      ++found->others;
    }
  }
  std::vector<TargetFinding> Take() {
    std::vector<TargetFinding> findings;
    for (Rule& rule : rules_) {
      if (rule.others > 0) {
        rule.what += " (and " + std::to_string(rule.others) + " more like it)";
      }
      findings.push_back({std::move(rule.where), std::move(rule.what)});
    }
    return findings;
  }

 private:
  struct Rule {
    std::string where;
    std::string what;
    int64_t others;
  };
  std::vector<Rule> rules_;
};

bool IsWeightOnlyInteger(const QuantScheme& scheme) {
  return scheme.code_type == CodeType::kInt && scheme.input.type == InputScheme::Type::kNone;
}
bool IsFp8Block(const QuantScheme& scheme) {
  return scheme.code_type == CodeType::kFp8 && scheme.group_size != QuantScheme::kPerChannel;
}

// The largest of the usual group sizes that divides `in`.
std::string GroupThatDivides(int64_t in) {
  for (const int64_t size : {128, 64, 32}) {
    if (in % size == 0) return "--group-size " + std::to_string(size);
  }
  return "--group-size channel";
}

class Rules {
 public:
  Rules(const ServingTarget& target, const DecoderSpec& spec, std::string_view format,
        std::span<const QuantizedModule> modules, const KvScheme& kv)
      : target_(target), spec_(spec), format_(format), kv_(kv), stack_(NameOf(target.stack)) {
    for (const QuantizedModule& module : modules) modules_[module.name] = &module;
  }

  TargetVerdict Run() {
    CheckHeads();
    CheckCache();
    if (serves() && format_ == "gptq_v2") {
      notes_.Add("", Told("reads gptq_v2 zero points right in recent releases alone; --format gptq "
                          "is safe"));
    }
    for (const BlockSpec& block : spec_.blocks) {
      for (const auto& linears : block.FusedLinears()) CheckFused(block, linears);
      for (const SharedInput& input : block.SharedInputs()) CheckInput(block, input);
    }
    return {refusals_.Take(), notes_.Take()};
  }

 private:
  bool serves() const { return target_.stack != Stack::kTransformers; }
  int64_t ranks() const { return target_.tensor_parallel; }
  std::string Told(const std::string& what) const { return stack_ + " " + what; }

  void CheckHeads() {
    if (ranks() == 1) return;
    const bool splits = spec_.heads % ranks() == 0;
    // Key-value heads are repeated where there are fewer than processes.
    const bool kv_splits = spec_.kv_heads % ranks() == 0 || ranks() % spec_.kv_heads == 0;
    if (splits && kv_splits) return;
    refusals_.Add("", std::to_string(spec_.heads) + " heads and " + std::to_string(spec_.kv_heads) +
                          " key-value heads do not split over " + std::to_string(ranks()) +
                          " processes; a smaller --tp may");
  }

  void CheckCache() {
    if (kv_.type == KvScheme::Type::kNone) return;
    if (!serves()) notes_.Add("", Told("ignores the scales of the key-value cache"));
    if (target_.stack == Stack::kSglang && kv_.per_head) {
      refusals_.Add("", Told("reads cache scales of layers, not of heads: --kv-scheme fp8"));
    }
  }

  // One layer in a server: q, k, v; gate, up; all experts.
  void CheckFused(const BlockSpec& block, const std::vector<const LinearSpec*>& linears) {
    if (!serves()) return;
    const bool experts = block.is_mixture() && linears.front() == &block.mixture.experts[0].gate;
    const QuantizedModule* first = Find(*linears.front());
    for (const LinearSpec* linear : linears) {
      const QuantizedModule* module = Find(*linear);
      const bool same = (first == nullptr) == (module == nullptr) &&
                        (first == nullptr || first->scheme == module->scheme);
      if (same) continue;
      refusals_.Add(linear->name, Told(experts ? "runs all experts of a block as one layer, and "
                                                 "these have different schemes"
                                               : "fuses layers that read the same input, and these "
                                                 "have different schemes"));
    }
    if (experts) CheckExperts(*linears.front(), first);
  }

  // `module`: of the first expert; null where dense.
  void CheckExperts(const LinearSpec& gate, const QuantizedModule* module) {
    if (format_ != "compressed-tensors") return;
    if (module != nullptr && IsWeightOnlyInteger(module->scheme) && !module->scheme.symmetric) {
      refusals_.Add(gate.name, Told("runs experts of symmetric groups alone; leave out "
                                    "--asymmetric, or --format awq"));
    }
    // These servers look for the scheme of "experts.0.gate_proj", whatever the file calls it.
    if (gate.name.ends_with(".gate_proj")) return;
    const bool uniform = std::ranges::all_of(modules_, [&](const auto& other) {
      return module != nullptr && other.second->scheme == module->scheme;
    });
    if (!uniform) {
      refusals_.Add(gate.name, Told("finds the scheme of experts of these names only where all "
                                    "quantized layers have one, and the experts with them"));
    }
  }

  void CheckInput(const BlockSpec& block, const SharedInput& input) {
    const std::vector<const LinearSpec*> linears = block.LinearsAt(input);
    for (const LinearSpec* linear : linears) {
      const QuantizedModule* module = Find(*linear);
      if (module == nullptr) continue;
      CheckScheme(*module);
      if (linear->transposed) CheckTransposed(*module);
    }
    if (!serves()) return;
    const bool by_input = input.site == Site::kAttentionOut || input.site == Site::kMlpOut;
    for (const std::vector<const LinearSpec*>& matrix : MatricesOf(block, input)) {
      const QuantizedModule* first = Find(*block.Stored(*matrix.front()).linear);
      if (first == nullptr) continue;
      if (by_input) {
        CheckInputsOfRank(*first);
      } else {
        CheckOutputsOfRank(block, input.site, matrix, *first);
      }
    }
  }

  // What lies in one matrix of a server, part by part: q, k and v; gate and up, of each expert.
  static std::vector<std::vector<const LinearSpec*>> MatricesOf(const BlockSpec& block,
                                                                const SharedInput& input) {
    if (input.expert != SharedInput::kNoExpert) return {block.LinearsAt(input)};
    std::vector<std::vector<const LinearSpec*>> matrices;
    const std::vector<const LinearSpec*> parts = block.PartsAt(input.site);
    if (!block.Stored(*parts.front()).linear->name.empty()) matrices.push_back(parts);
    if (input.site != Site::kMlpIn) return matrices;
    for (const MlpSpec& expert : block.mixture.experts) {
      matrices.push_back({&expert.gate, &expert.up});
    }
    return matrices;
  }

  const QuantizedModule* Find(const LinearSpec& linear) const {
    const auto found = modules_.find(linear.name);
    return found == modules_.end() ? nullptr : found->second;
  }

  void CheckScheme(const QuantizedModule& module) {
    if (!serves()) return CheckTransformersScheme(module);
    const QuantScheme& scheme = module.scheme;
    if (!IsWeightOnlyInteger(scheme)) return CheckFloatsOrRoundedInputs(module);
    if (scheme.bits != 4 && scheme.bits != 8) {
      refusals_.Add(module.name, Told("has no kernel for integers of " +
                                      std::to_string(scheme.bits) + " bits; w4a16 and w8a16 run"));
    }
    const int64_t group = scheme.group_size;
    if (group != QuantScheme::kPerChannel && group != 32 && group != 64 && group != 128) {
      refusals_.Add(module.name,
                    Told("runs groups of 32, 64 and 128 and whole rows, not of " +
                         std::to_string(group) + "; " + GroupThatDivides(module.in) + " runs"));
    }
    if (!scheme.symmetric) CheckZeroPoints(module);
  }

  void CheckFloatsOrRoundedInputs(const QuantizedModule& module) {
    const QuantScheme& scheme = module.scheme;
    if (scheme.input.has_block_scales()) {
      notes_.Add(module.name, Told("rounds these inputs on Blackwell alone; other devices run the "
                                   "weights with inputs as they are"));
    } else if (scheme.code_type == CodeType::kInt && scheme.bits != 8) {
      notes_.Add(module.name, Told("has kernels for integers of " + std::to_string(scheme.bits) +
                                   " bits with rounded inputs on few devices"));
    } else if (scheme.code_type == CodeType::kFp4 && target_.stack == Stack::kSglang) {
      notes_.Add(module.name, Told("reads FP4 weights in recent releases alone"));
    }
  }

  // GPT-2's layers are Conv1D, not Linear, in transformers; vLLM and SGLang transpose what is
  // called "weight" as they read it, and nothing else.
  void CheckTransposed(const QuantizedModule& module) {
    const bool gptq = format_ == "gptq" || format_ == "gptq_v2";
    if (!serves()) {
      if (gptq) return;
      refusals_.Add(module.name, Told("quantizes no layers of GPT-2's kind (Conv1D) but those of "
                                      "gptq files: --format gptq"));
    } else if (!IsWeightOnlyInteger(module.scheme) && module.scheme.code_type != CodeType::kFp4) {
      refusals_.Add(module.name, Told("would read these weights transposed, as GPT-2's dense ones "
                                      "are; w4a16 and w8a16 run"));
    }
  }

  void CheckZeroPoints(const QuantizedModule& module) {
    if (format_ == "awq") return;
    if (format_ == "gptq" || format_ == "gptq_v2") {
      refusals_.Add(module.name,
                    Told("reads symmetric groups alone from gptq files; leave out --asymmetric, or "
                         "--format awq"));
    } else if (target_.stack == Stack::kSglang) {
      refusals_.Add(module.name, Told("takes the groups of compressed-tensors files for symmetric; "
                                      "leave out --asymmetric, or --format awq"));
    } else if (module.scheme.bits == 8) {
      refusals_.Add(module.name, Told("has no kernel for 8 bits with zero points; leave out "
                                      "--asymmetric"));
    }
  }

  void CheckTransformersScheme(const QuantizedModule& module) {
    if (format_ != "fp8") return;
    if (!module.scheme.input.dynamic) {
      refusals_.Add(module.name,
                    "transformers reads dynamic inputs alone from fp8 files; "
                    "--scheme fp8-tensor or fp8-block, or --format compressed-tensors");
    } else if (!IsFp8Block(module.scheme)) {
      notes_.Add(module.name,
                 "transformers reads fp8 files of one scale a tensor in recent releases "
                 "alone; fp8-block is read by all");
    }
  }

  // o and down: each process holds some of the inputs.
  void CheckInputsOfRank(const QuantizedModule& module) {
    if (module.in % ranks() != 0) {
      refusals_.Add(module.name, std::to_string(module.in) + " inputs do not split over " +
                                     std::to_string(ranks()) + " processes; a smaller --tp may");
      return;
    }
    CheckShape(module, module.out, module.in / ranks());
  }

  // q, k and v (gate and up) are split one by one, stored as one or not.
  void CheckOutputsOfRank(const BlockSpec& block, Site site,
                          const std::vector<const LinearSpec*>& parts,
                          const QuantizedModule& module) {
    int64_t out = 0;
    for (const LinearSpec* part : parts) {
      const std::string& name = block.Stored(*part).linear->name;
      const bool is_kv = site == Site::kAttentionIn && part != &block.query;
      const int64_t split = is_kv ? std::min(ranks(), spec_.kv_heads) : ranks();
      if (part->out % split != 0) {
        refusals_.Add(name, std::to_string(part->out) + " outputs do not split over " +
                                std::to_string(split) + " processes; a smaller --tp may");
        return;
      }
      const int64_t shard = part->out / split;
      if (IsFp8Block(module.scheme) && shard % kFp8Block != 0) {
        refusals_.Add(name, std::to_string(shard) +
                                " outputs on a process are no multiple of the block's "
                                "128; --scheme fp8, or a smaller --tp");
      }
      out += shard;
    }
    CheckShape(module, out, module.in);
  }

  // out, in: of what one process multiplies.
  void CheckShape(const QuantizedModule& module, int64_t out, int64_t in) {
    const QuantScheme& scheme = module.scheme;
    const std::string inputs = std::to_string(in) + " inputs on a process";
    if (IsFp8Block(scheme) && in % kFp8Block != 0) {
      refusals_.Add(
          module.name,
          inputs + " are no multiple of the block's 128; --scheme fp8, or a smaller --tp");
    }
    if (scheme.group_size != QuantScheme::kPerChannel && !IsFp8Block(scheme) &&
        in % scheme.group_size != 0) {
      refusals_.Add(module.name, inputs + " are no multiple of the group size " +
                                     std::to_string(scheme.group_size) + "; " +
                                     GroupThatDivides(in) + ", or a smaller --tp");
      return;
    }
    if (!IsWeightOnlyInteger(scheme) || (out % kTileOut == 0 && in % kTileIn == 0)) return;
    const std::string shape = std::to_string(out) + " outputs by " + inputs;
    if (target_.stack == Stack::kSglang) {
      refusals_.Add(module.name,
                    shape + ": " + stack_ +
                        "'s Marlin kernel needs multiples of 64 and "
                        "128; leave the layer dense (--keep-dense), or a smaller --tp");
    } else {
      notes_.Add(module.name, shape +
                                  ": releases of vllm before mid-2026 need multiples of 64 and "
                                  "128 for their fast kernel; later ones pad");
    }
  }

  const ServingTarget& target_;
  const DecoderSpec& spec_;
  std::string_view format_;
  const KvScheme& kv_;
  std::string stack_;
  std::unordered_map<std::string, const QuantizedModule*> modules_;
  Findings refusals_;
  Findings notes_;
};

}  // namespace

std::string_view NameOf(Stack stack) {
  for (const auto& [known, name] : kStacks) {
    if (known == stack) return name;
  }
  return "";
}

Stack StackNamed(const std::string& name, const std::string& where) {
  std::string known;
  for (const auto& [stack, stack_name] : kStacks) {
    if (name == stack_name) return stack;
    known += (known.empty() ? "" : ", ") + std::string(stack_name);
  }
  throw Error(ErrorCode::kUsage, where, "'" + name + "' is not one of: " + known);
}

TargetVerdict CheckServingTarget(const ServingTarget& target, const DecoderSpec& spec,
                                 std::string_view format, std::span<const QuantizedModule> modules,
                                 const KvScheme& kv) {
  if (target.stack == Stack::kNone) return {};
  if (target.stack == Stack::kLlamaCpp) return CheckLlamaCpp(target, spec, format, modules);
  if (format.starts_with("gguf")) {
    return {{{"", "how " + std::string(NameOf(target.stack)) +
                      " reads gguf files is not checked: --format compressed-tensors, or --target "
                      "llama.cpp"}},
            {}};
  }
  return Rules(target, spec, format, modules, kv).Run();
}

}  // namespace quantmill
