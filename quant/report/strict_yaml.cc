#include "quant/report/strict_yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <set>
#include <sstream>
#include <type_traits>

#include "kernels/core/error.h"
#include "quant/report/spelling.h"

namespace quantmill {
namespace {

class IgnoredEvents : public YAML::EventHandler {
 public:
  const YAML::Mark& last_document() const { return last_document_; }

  void OnDocumentStart(const YAML::Mark& mark) override { last_document_ = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  YAML::Mark last_document_;
};

// What follows the first document, which YAML::Load does not look at. Not YAML::LoadAll: some
// texts that are no YAML (", a") are endless documents to it.
void RequireOneDocument(const std::string& yaml, const YamlPlace& place) {
  std::istringstream stream(yaml);
  YAML::Parser parser(stream);
  IgnoredEvents ignored;
  if (!parser.HandleNextDocument(ignored) || !parser.HandleNextDocument(ignored)) return;
  RefuseYaml(place, ignored.last_document(), "holds more than one document, or is not YAML");
}

YAML::Node ParseYaml(const std::string& yaml, const YamlPlace& place) {
  try {
    RequireOneDocument(yaml, place);
    return YAML::Load(yaml);
  } catch (const YAML::Exception& error) {
    RefuseYaml(place, error.mark, "is not YAML: " + error.msg);
  }
}

}  // namespace

std::string YamlPlace::At(const YAML::Mark& mark) const {
  const std::string line = mark.is_null() ? file : fmt::format("{}:{}", file, mark.line + 1);
  return key.empty() ? line : line + ": " + key;
}

void RefuseYaml(const YamlPlace& place, const YAML::Mark& mark, const std::string& what) {
  throw Error(ErrorCode::kUsage, place.At(mark), what);
}

YAML::Node ParseYamlMap(const std::string& yaml, const YamlPlace& place, const std::string& what) {
  YAML::Node root = ParseYaml(yaml, place);
  if (root.IsNull()) RefuseYaml(place, root.Mark(), "holds nothing: " + what + " was expected");
  if (!root.IsMap()) RefuseYaml(place, root.Mark(), what + " is a list of 'key: value' lines");
  return root;
}

void VisitYamlMap(const YAML::Node& node, const YamlPlace& place,
                  const std::vector<std::string>& known, const YamlVisit& visit) {
  std::set<std::string> seen;
  for (const auto& pair : node) {
    const YAML::Mark mark = pair.first.Mark();
    if (!pair.first.IsScalar()) RefuseYaml(place, mark, "a key must be a word");
    const std::string& name = pair.first.Scalar();
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      const std::string hint = Suggestion(name, known);
      RefuseYaml(place, mark,
                 fmt::format("unknown key '{}'{}", name,
                             hint.empty() ? fmt::format("; known ones: {}", fmt::join(known, ", "))
                                          : hint));
    }
    if (!seen.insert(name).second) RefuseYaml(place, mark, "key '" + name + "' is given twice");
    visit(name, pair.second, YamlPlace{place.file, name});
  }
}

const std::string& YamlScalar(const YAML::Node& node, const YamlPlace& place, const char* wanted) {
  if (!node.IsScalar()) RefuseYaml(place, node.Mark(), fmt::format("needs {}", wanted));
  return node.Scalar();
}

bool YamlBool(const YAML::Node& node, const YamlPlace& place) {
  const std::string& text = YamlScalar(node, place, "true or false");
  if (text != "true" && text != "false") {
    RefuseYaml(place, node.Mark(), "'" + text + "' is neither true nor false");
  }
  return text == "true";
}

template <typename T>
T YamlNumber(const YAML::Node& node, const YamlPlace& place) {
  constexpr const char* kKind = std::is_integral_v<T> ? "a whole number" : "a number";
  const std::string& text = YamlScalar(node, place, kKind);
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) {
    RefuseYaml(place, node.Mark(), fmt::format("'{}' is not {}", text, kKind));
  }
  return value;
}
template int64_t YamlNumber<int64_t>(const YAML::Node& node, const YamlPlace& place);
template double YamlNumber<double>(const YAML::Node& node, const YamlPlace& place);

}  // namespace quantmill
