#include "quant/pipeline/recipe_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "formats/file.h"
#include "formats/kv_text.h"
#include "kernels/core/error.h"
#include "quant/pipeline/recipe_presets.h"
#include "quant/pipeline/schemes.h"
#include "quant/report/spelling.h"
#include "quant/report/strict_yaml.h"

namespace quantmill {
namespace {

constexpr uint64_t kMaxRecipeBytes = 1 << 20;
constexpr int kMaxIncludes = 100;  // in all: ten lines can ask for ten times as many, and so on

template <auto Field>
void ReadText(const YAML::Node& node, const YamlPlace& place, RecipeDraft& draft) {
  const std::string& text = YamlScalar(node, place, "a word");
  if (text.empty()) RefuseYaml(place, node.Mark(), "needs a value");
  draft.*Field = {text, place.At(node.Mark())};
}

template <auto Field>
void ReadBool(const YAML::Node& node, const YamlPlace& place, RecipeDraft& draft) {
  draft.*Field = {YamlBool(node, place), place.At(node.Mark())};
}

template <auto Field, typename T>
void ReadNumber(const YAML::Node& node, const YamlPlace& place, RecipeDraft& draft) {
  draft.*Field = {YamlNumber<T>(node, place), place.At(node.Mark())};
}

void ReadRules(const YAML::Node& node, const YamlPlace& place, RecipeDraft& draft);

struct Key {
  const char* name;
  void (*read)(const YAML::Node& node, const YamlPlace& place, RecipeDraft& draft);
};

constexpr Key kKeys[] = {
    {"include", nullptr},  // read first, by ReadIncludes
    {"scheme", ReadText<&RecipeDraft::scheme>},
    {"group_size", ReadText<&RecipeDraft::group_size>},
    {"asymmetric", ReadBool<&RecipeDraft::asymmetric>},
    {"method", ReadText<&RecipeDraft::method>},
    {"effort", ReadText<&RecipeDraft::effort>},
    {"smoothing_alpha", ReadNumber<&RecipeDraft::smoothing_alpha, double>},
    {"kv_scheme", ReadText<&RecipeDraft::kv_scheme>},
    {"rotate", ReadBool<&RecipeDraft::rotate>},
    {"rules", ReadRules},
    {"budget", ReadText<&RecipeDraft::budget>},
    {"quantize_head", ReadBool<&RecipeDraft::quantize_head>},
    {"format", ReadText<&RecipeDraft::format>},
    {"gguf_type", ReadText<&RecipeDraft::gguf_type>},
    {"embedding_type", ReadText<&RecipeDraft::embedding_type>},
    {"gguf_pre", ReadText<&RecipeDraft::gguf_pre>},
    {"target", ReadText<&RecipeDraft::target>},
    {"tensor_parallel", ReadNumber<&RecipeDraft::tensor_parallel, int64_t>},
    {"act_order", ReadBool<&RecipeDraft::act_order>},
    {"damp_percent", ReadNumber<&RecipeDraft::damp_percent, double>},
    {"calib", ReadText<&RecipeDraft::calib>},
    {"samples", ReadNumber<&RecipeDraft::samples, int64_t>},
    {"sequence_length", ReadNumber<&RecipeDraft::sequence_length, int64_t>},
    {"calib_seed", ReadNumber<&RecipeDraft::calib_seed, int64_t>},
    {"held_out", ReadNumber<&RecipeDraft::held_out, int64_t>},
    {"compute", ReadText<&RecipeDraft::compute>},
    {"max_host_mem", ReadText<&RecipeDraft::max_host_mem>},
    {"max_gpu_mem", ReadText<&RecipeDraft::max_gpu_mem>},
    {"max_fallbacks", ReadNumber<&RecipeDraft::max_fallbacks, int64_t>},
};

void ReadRules(const YAML::Node& node, const YamlPlace& place, RecipeDraft& draft) {
  if (!node.IsSequence())
    RefuseYaml(place, node.Mark(), "needs a list of {match: ..., scheme: ...}");
  for (const YAML::Node& entry : node) {
    if (!entry.IsMap()) RefuseYaml(place, entry.Mark(), "a rule is {match: REGEX, scheme: SCHEME}");
    RuleDraft rule;
    rule.where = place.At(entry.Mark());
    VisitYamlMap(entry, place, {"match", "scheme"},
                 [&](const std::string& name, const YAML::Node& value, const YamlPlace& inner) {
                   std::string& field = name == "match" ? rule.pattern : rule.scheme;
                   field = YamlScalar(value, inner,
                                      name == "match" ? "a regular expression" : "a scheme");
                 });
    if (rule.pattern.empty()) RefuseYaml(place, entry.Mark(), "a rule needs 'match'");
    if (rule.scheme.empty()) RefuseYaml(place, entry.Mark(), "a rule needs 'scheme' (or dense)");
    draft.rules.push_back(std::move(rule));
  }
}

// Loads recipes with what they include.
class Loader {
 public:
  // `wanted`: a preset or a path from `folder`.
  RecipeDraft Load(const std::string& wanted, const std::filesystem::path& folder,
                   const std::string& where) {
    const Preset* preset = FindPreset(wanted);
    const std::filesystem::path path = folder / wanted;
    if (preset == nullptr && !std::filesystem::exists(path)) {
      throw Error(ErrorCode::kUsage, where,
                  fmt::format("'{}' is neither a file nor a built-in recipe{} ('quantmill "
                              "recipes' lists them)",
                              wanted, Suggestion(wanted, PresetNames())));
    }
    const std::string id = preset != nullptr ? wanted : std::filesystem::canonical(path).string();
    if (std::find(open_.begin(), open_.end(), id) != open_.end()) {
      throw Error(ErrorCode::kUsage, where, "'" + wanted + "' includes itself");
    }
    if (++loaded_ > kMaxIncludes) {
      throw Error(ErrorCode::kUsage, where, fmt::format("more than {} includes", kMaxIncludes));
    }
    open_.push_back(id);
    RecipeDraft draft = preset != nullptr ? Parse(std::string(preset->yaml), wanted, folder)
                                          : Parse(ReadTextFile(path, kMaxRecipeBytes),
                                                  path.string(), path.parent_path());
    open_.pop_back();
    return draft;
  }

  RecipeDraft Parse(const std::string& yaml, const std::string& file,
                    const std::filesystem::path& folder) {
    const YamlPlace place{file, ""};
    const YAML::Node root = ParseYamlMap(yaml, place, "a recipe");
    RecipeDraft draft;
    std::vector<std::string> known;
    known.reserve(std::size(kKeys));
    for (const Key& key : kKeys) known.emplace_back(key.name);
    RecipeDraft own;
    VisitYamlMap(root, place, known,
                 [&](const std::string& name, const YAML::Node& value, const YamlPlace& inner) {
                   if (name == "include") return ReadIncludes(value, inner, folder, draft);
                   const Key* key = std::find_if(std::begin(kKeys), std::end(kKeys),
                                                 [&](const Key& k) { return name == k.name; });
                   key->read(value, inner, own);
                 });
    Override(draft, own);
    return draft;
  }

 private:
  void ReadIncludes(const YAML::Node& node, const YamlPlace& place,
                    const std::filesystem::path& folder, RecipeDraft& draft) {
    const auto include = [&](const YAML::Node& entry) {
      const std::string& name = YamlScalar(entry, place, "the name of a recipe, or a file");
      Override(draft, Load(name, folder, place.At(entry.Mark())));
    };
    if (!node.IsSequence()) return include(node);
    for (const YAML::Node& entry : node) include(entry);
  }

  int loaded_ = 0;
  std::vector<std::string> open_;  // what is being loaded, outermost first
};

void EmitRules(YAML::Emitter& out, const Recipe& recipe) {
  if (recipe.rules.empty()) return;
  out << YAML::Key << "rules" << YAML::Value << YAML::BeginSeq;
  for (const Rule& rule : recipe.rules) {
    out << YAML::BeginMap;
    out << YAML::Key << "match" << YAML::Value << rule.pattern;
    out << YAML::Key << "scheme" << YAML::Value
        << (rule.scheme ? SchemeText(*rule.scheme) : "dense");
    out << YAML::EndMap;
  }
  out << YAML::EndSeq;
}

void EmitGguf(YAML::Emitter& out, const GgufChoice& gguf) {
  out << YAML::Key << "gguf_type" << YAML::Value << gguf.type;
  if (!gguf.embedding_type.empty()) {
    out << YAML::Key << "embedding_type" << YAML::Value << gguf.embedding_type;
  }
  if (!gguf.pre.empty()) out << YAML::Key << "gguf_pre" << YAML::Value << gguf.pre;
}

void EmitCalibration(YAML::Emitter& out, const Recipe& recipe) {
  const CalibrationRecipe& calibration = recipe.calibration;
  if (!calibration.text.empty()) out << YAML::Key << "calib" << YAML::Value << calibration.text;
  out << YAML::Key << "samples" << YAML::Value << calibration.samples;
  out << YAML::Key << "sequence_length" << YAML::Value << calibration.sequence_length;
  if (calibration.seed) out << YAML::Key << "calib_seed" << YAML::Value << *calibration.seed;
  if (calibration.held_out > 0)
    out << YAML::Key << "held_out" << YAML::Value << calibration.held_out;
  if (recipe.compute) {
    out << YAML::Key << "compute" << YAML::Value << NameOf(*recipe.compute);
  }
}

}  // namespace

RecipeDraft LoadRecipe(const std::string& name_or_path) {
  return Loader().Load(name_or_path, "", "--recipe");
}

RecipeDraft ParseRecipe(const std::string& yaml, const std::string& where) {
  return Loader().Parse(yaml, where, "");
}

std::string RecipeYaml(const Recipe& recipe, const std::string& head) {
  YAML::Emitter out;
  if (!head.empty()) out << YAML::Comment(head) << YAML::Newline;
  out << YAML::BeginMap;
  if (!recipe.gguf) out << YAML::Key << "scheme" << YAML::Value << SchemeText(recipe.scheme);
  out << YAML::Key << "method" << YAML::Value << NameOf(recipe.method_choice());
  if (recipe.smoothing_alpha) {
    out << YAML::Key << "smoothing_alpha" << YAML::Value
        << fmt::format("{}", *recipe.smoothing_alpha);
  }
  if (recipe.kv.type != KvScheme::Type::kNone) {
    out << YAML::Key << "kv_scheme" << YAML::Value << KvText(recipe.kv);
  }
  if (recipe.rotate) out << YAML::Key << "rotate" << YAML::Value << true;
  out << YAML::Key << "format" << YAML::Value << recipe.format;
  if (recipe.gguf) EmitGguf(out, *recipe.gguf);
  if (recipe.target.stack != ServingTarget::Stack::kNone) {
    out << YAML::Key << "target" << YAML::Value << std::string(NameOf(recipe.target.stack));
    out << YAML::Key << "tensor_parallel" << YAML::Value << recipe.target.tensor_parallel;
  }
  if (!recipe.gguf) {
    out << YAML::Key << "quantize_head" << YAML::Value << recipe.quantize_head;
  }
  out << YAML::Key << "max_fallbacks" << YAML::Value << recipe.max_fallbacks;
  if (recipe.calibrated()) {
    out << YAML::Key << "effort" << YAML::Value << NameOf(recipe.effort);
    out << YAML::Key << "act_order" << YAML::Value << recipe.act_order;
    out << YAML::Key << "damp_percent" << YAML::Value
        << fmt::format("{}", recipe.damp_percent);  // the shortest text that reads back
    EmitCalibration(out, recipe);
  }
  EmitRules(out, recipe);
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

}  // namespace quantmill
