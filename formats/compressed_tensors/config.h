// The `quantization_config` of compressed-tensors: which module is stored how. Private to formats/.
#ifndef QUANTMILL_FORMATS_COMPRESSED_TENSORS_CONFIG_H_
#define QUANTMILL_FORMATS_COMPRESSED_TENSORS_CONFIG_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "formats/tokenizer/regex.h"

namespace quantmill {

// Immutable and thread-safe once parsed.
class CompressedTensorsConfig {
 public:
  // `where` names the file in errors. Throws Error(kBadInput) naming the key that is wrong or asks
  // for what cannot be read (see compressed_tensors.h).
  static CompressedTensorsConfig Parse(const nlohmann::json& config, const std::string& where);

  // For a linear layer: empty if it is ignored or no target names it. The type of the scales is
  // F32 but for FP4: it is that of the tensor in the file. As in the library, an exact name wins
  // over a pattern, and a pattern over the class name "Linear". Throws Error(kBadInput) if two
  // groups claim the module equally and differ.
  std::optional<QuantScheme> SchemeFor(const std::string& module) const;
  // Whether act-order scattered the inputs of its groups (weight_g_idx). Throws as SchemeFor.
  bool HasActOrder(const std::string& module) const;
  // Targets that are names of modules (neither pattern nor class), as written.
  const std::vector<std::string>& exact_targets() const { return exact_targets_; }
  const KvScheme& kv_scheme() const { return kv_scheme_; }

 private:
  // An entry of `targets` or `ignore`.
  struct Target {
    std::string text;
    std::optional<Regex> pattern;
    // 3: the exact name, 2: a pattern that matches from the start, 1: "Linear", 0: no match.
    int Match(const std::string& module) const;
  };
  struct Group {
    std::string name;
    std::vector<Target> targets;
    QuantScheme scheme;
    bool act_order = false;
  };
  static std::vector<Target> ParseTargets(const nlohmann::json& list, const std::string& where);
  // Of a module, or null. Throws as SchemeFor.
  const Group* GroupOf(const std::string& module) const;

  std::string where_;
  std::vector<Group> groups_;
  std::vector<Target> ignore_;
  std::vector<std::string> exact_targets_;
  KvScheme kv_scheme_;
};

// The configuration of modules stored by us. One scheme for all: target "Linear" and every dense
// layer ignored by name; several: a group of exact names each, with its format where they differ.
nlohmann::json MakeCompressedTensorsConfig(std::span<const QuantizedModule> modules,
                                           std::span<const std::string> dense, const KvScheme& kv);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_COMPRESSED_TENSORS_CONFIG_H_
