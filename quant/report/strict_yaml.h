// YAML that people write: every key known and given once, errors with file and line.
#ifndef QUANTMILL_QUANT_REPORT_STRICT_YAML_H_
#define QUANTMILL_QUANT_REPORT_STRICT_YAML_H_

#include <yaml-cpp/yaml.h>

#include <functional>
#include <string>
#include <vector>

namespace quantmill {

// Where a node is: the file, and the key that it is the value of (empty: the whole).
struct YamlPlace {
  std::string file;
  std::string key;

  std::string At(const YAML::Mark& mark) const;  // "limits.yaml:3: kl"
};

// Throws Error(kUsage, place.At(mark), what).
[[noreturn]] void RefuseYaml(const YamlPlace& place, const YAML::Mark& mark,
                             const std::string& what);

// The map that `yaml` is, alone in its document. Throws Error(kUsage) otherwise; `what` is what it
// should be: "a recipe".
YAML::Node ParseYamlMap(const std::string& yaml, const YamlPlace& place, const std::string& what);

// Calls visit for each pair of a map in its order. Throws Error(kUsage) for a key that is not one
// of `known` (with the nearest), or is given twice.
using YamlVisit =
    std::function<void(const std::string& name, const YAML::Node& value, const YamlPlace& place)>;
void VisitYamlMap(const YAML::Node& node, const YamlPlace& place,
                  const std::vector<std::string>& known, const YamlVisit& visit);

// The text of a node that is no list or map. Throws Error(kUsage): "needs `wanted`".
const std::string& YamlScalar(const YAML::Node& node, const YamlPlace& place, const char* wanted);
bool YamlBool(const YAML::Node& node, const YamlPlace& place);
// All of the text must be one number. T: int64_t or double.
template <typename T>
T YamlNumber(const YAML::Node& node, const YamlPlace& place);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_STRICT_YAML_H_
