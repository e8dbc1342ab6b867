// quantization_config of GPTQ files. Private to formats/.
#ifndef QUANTMILL_FORMATS_GPTQ_CONFIG_H_
#define QUANTMILL_FORMATS_GPTQ_CONFIG_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "formats/tokenizer/regex.h"

namespace quantmill {

class GptqConfig {
 public:
  // Throws Error(kBadInput, where) naming the key that cannot be read. `where` is of config.json.
  static GptqConfig Parse(const nlohmann::json& config, const std::string& where);

  bool version_2() const { return version_2_; }
  // Of a module that has packed tensors; scale type aside. Empty: `dynamic` leaves it dense.
  // Error(kBadInput) where entries of `dynamic` disagree on it.
  std::optional<QuantScheme> SchemeFor(const std::string& module) const;

 private:
  // One entry of `dynamic`: modules whose name matches from its start.
  struct Override {
    std::string key;
    Regex pattern;
    std::optional<QuantScheme> scheme;  // empty: left dense
  };

  std::string where_;
  bool version_2_ = false;
  QuantScheme scheme_;
  std::vector<Override> overrides_;
};

// The scheme of most modules is the file's own; `dynamic` lists the others and the dense ones.
nlohmann::json MakeGptqConfig(std::span<const QuantizedModule> modules,
                              std::span<const std::string> dense, bool version_2);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GPTQ_CONFIG_H_
