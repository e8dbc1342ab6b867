// Which layers are quantized, and how.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "formats/gguf/vocabulary.h"
#include "kernels/core/error.h"
#include "quant/model/config_reader.h"
#include "quant/model/rotation.h"
#include "quant/pipeline/block_rows.h"
#include "quant/pipeline/plan.h"
#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

constexpr int64_t kListedLayers = 8;

// Group sizes of 32, 64, 128 that divide every width.
std::string FittingGroups(const std::vector<int64_t>& widths) {
  std::string fitting;
  for (const int64_t size : {128, 64, 32}) {
    const bool fits =
        std::all_of(widths.begin(), widths.end(), [&](int64_t width) { return width % size == 0; });
    if (fits) fitting += std::to_string(size) + ", ";
  }
  return fitting + "channel";
}

// Refuses ragged last groups, which most servers cannot load.
void CheckGroups(const PlannedModules& modules) {
  std::vector<int64_t> widths;
  std::string layers;
  int64_t misfits = 0;
  const QuantScheme* misfit = nullptr;
  for (const QuantizedModule& module : modules.all()) {
    widths.push_back(module.in);
    if (module.in % module.scheme.GroupSizeFor(module.in) == 0) continue;
    if (misfit == nullptr) misfit = &module.scheme;
    if (++misfits <= kListedLayers) {
      layers += fmt::format("\n  {} ({} inputs)", module.name, module.in);
    }
  }
  if (misfit == nullptr) return;
  if (misfits > kListedLayers) layers += fmt::format("\n  and {} more", misfits - kListedLayers);
  const std::string text = SchemeText(*misfit);
  const bool choice = SchemeNamed(ParseScheme(text, "").name).takes_groups;
  throw Error(
      ErrorCode::kUsage, choice ? "--group-size" : "--scheme",
      fmt::format("{} does not divide the inputs of {} of {} layers; {}. Layers that do not "
                  "fit:{}",
                  misfit->group_size, misfits, widths.size(),
                  choice ? "group sizes that fit all layers: " + FittingGroups(widths)
                         : text + " has no other; give them another scheme with --rule, or "
                                  "leave them dense with --keep-dense",
                  layers));
}

// Blocks of rows must not span two of the layers that servers fuse.
void CheckRowBlocks(const PlannedModules& modules) {
  for (const QuantizedModule& module : modules.all()) {
    const int64_t rows = module.scheme.row_block;
    if (rows == QuantScheme::kAllRows || module.out % rows == 0) continue;
    throw Error(ErrorCode::kUsage, module.name,
                fmt::format("{}: its {} outputs are no multiple of {}: servers that fuse layers "
                            "could not load it; give it another scheme with --rule, or leave it "
                            "dense with --keep-dense",
                            SchemeText(module.scheme), module.out, rows));
  }
}

[[noreturn]] void ThrowNothingLeft() {
  throw Error(ErrorCode::kUsage, "--keep-dense", "the rules leave no layer to quantize");
}

ConfigReader ConfigOf(const ModelSource& source) {
  return {source.checkpoint().config(), (source.checkpoint().folder() / "config.json").string()};
}

std::string SchemeOrDense(const QuantizedModule* module) {
  return module == nullptr ? "dense" : SchemeText(module->scheme);
}

// q, k, v are one matrix in a server, and so are gate and up; experts of a block are one layer.
void CheckFused(const DecoderSpec& spec, const PlannedModules& modules) {
  for (const BlockSpec& block : spec.blocks) {
    for (const std::vector<const LinearSpec*>& linears : block.FusedLinears()) {
      const QuantizedModule* first = modules.Find(linears.front()->name);
      for (const LinearSpec* linear : linears) {
        const QuantizedModule* other = modules.Find(linear->name);
        const bool same = (first == nullptr) == (other == nullptr) &&
                          (first == nullptr || first->scheme == other->scheme);
        if (same) continue;
        throw Error(ErrorCode::kUsage, "--rule",
                    fmt::format("{} would be {} and {} {}: vLLM and SGLang fuse these layers and "
                                "cannot load them in different schemes; write a rule that matches "
                                "all of q_proj, k_proj, v_proj (or gate_proj, up_proj; or all "
                                "layers of all experts of a block)",
                                linears.front()->name, SchemeOrDense(first), linear->name,
                                SchemeOrDense(other)));
      }
    }
  }
}

void CheckHead(const ModelSource& source) {
  if (!source.spec().tied) return;
  throw Error(ErrorCode::kUsage, "--quantize-head",
              source.spec().lm_head.name +
                  " is tied to the embedding, which servers read as a table of dense rows: it "
                  "cannot be quantized (--rotate makes it a tensor of its own)");
}

// The methods that a scheme cannot use, for any of its layers.
void CheckMethod(const Recipe& recipe, const QuantizedModule& module) {
  const bool rounds_inputs = module.scheme.input.type != InputScheme::Type::kNone;
  if (recipe.transform == Transform::kAwq && rounds_inputs) {
    throw Error(ErrorCode::kUsage, "--method",
                fmt::format("awq is for weight-only schemes; {} rounds inputs too, which "
                            "smoothquant balances",
                            SchemeText(module.scheme)));
  }
}

void CheckTransform(const Recipe& recipe, const PlannedModules& modules) {
  bool any_rounded = false;
  for (const QuantizedModule& module : modules.all()) {
    CheckMethod(recipe, module);
    any_rounded |= module.scheme.input.type != InputScheme::Type::kNone;
  }
  if (recipe.transform != Transform::kSmoothQuant || any_rounded) return;
  throw Error(
      ErrorCode::kUsage, "--method",
      fmt::format("smoothquant balances the rounding of inputs against that of weights, and "
                  "{} does not round inputs; awq is the like for weight-only schemes",
                  SchemeText(recipe.scheme)));
}

std::vector<std::string> NamesOf(const std::vector<const LinearSpec*>& linears) {
  std::vector<std::string> names;
  names.reserve(linears.size());
  for (const LinearSpec* linear : linears) names.push_back(linear->name);
  return names;
}

void ResolveScales(const ModelSource& source, Recipe& recipe) {
  const ArtifactWriterFormat& format = FindArtifactFormat(recipe.format);
  recipe.scheme.scale_dtype = ScaleTypeFor(recipe.scheme, format, source.dense_dtype());
  for (Rule& rule : recipe.rules) {
    if (!rule.scheme) continue;
    rule.scheme->scale_dtype = ScaleTypeFor(*rule.scheme, format, source.dense_dtype());
  }
}

// Refuses what the server could not load.
void CheckTarget(const DecoderSpec& spec, const QuantizePlan& plan) {
  const Recipe& recipe = plan.recipe;
  const TargetVerdict verdict =
      CheckServingTarget(recipe.target, spec, recipe.format, plan.modules.all(), recipe.kv);
  if (verdict.refusals.empty()) return;
  std::string text;
  for (const TargetFinding& finding : verdict.refusals) {
    if (!text.empty()) text += "\n  ";
    text += finding.where + (finding.where.empty() ? "" : ": ") + finding.what;
  }
  throw Error(ErrorCode::kUsage, fmt::format("--target {}", NameOf(recipe.target.stack)), text);
}

// What the recipe says of each layer, in order.
void ChooseSchemes(const ModelSource& source, QuantizePlan& plan) {
  const DecoderSpec& spec = source.spec();
  std::vector<const LinearSpec*> linears = spec.Linears();
  if (plan.recipe.quantize_head) linears.push_back(&spec.lm_head);
  QuantScheme head = MakeScheme({kHeadScheme, {}, {}}, "--quantize-head");
  head.scale_dtype =
      ScaleTypeFor(head, FindArtifactFormat(plan.recipe.format), source.dense_dtype());
  RuleMatcher rules(plan.recipe.rules);
  for (const BlockSpec& block : spec.blocks) {
    // Whatever the rules say: a pattern that is meant for the experts often matches the router too.
    for (const LinearSpec* linear : block.RoutingLinears()) {
      rules.Match(linear->name);
      plan.dense.push_back(linear->name);
    }
  }
  for (const LinearSpec* linear : linears) {
    const Rule* rule = rules.Match(linear->name);
    const QuantScheme& plain = linear == &spec.lm_head ? head : plan.recipe.scheme;
    if (rule != nullptr && !rule->scheme) {
      plan.dense.push_back(linear->name);
    } else {
      plan.modules.Add(
          {linear->name, rule != nullptr ? *rule->scheme : plain, linear->out, linear->in});
    }
  }
  for (const LinearSpec* linear : spec.Projections()) plan.dense.push_back(linear->name);
  if (!plan.recipe.quantize_head) plan.dense.push_back(spec.lm_head.name);
  rules.RequireAllMatched(NamesOf(linears));
}

// Layers in blocks of the types that llama-quantize would give them; those that rules keep dense
// are stored as they are.
void ChooseGgufSchemes(const ModelSource& source, QuantizePlan& plan) {
  const GgufChoice& choice = *plan.recipe.gguf;
  // Throws for a tokenizer that the file could not hold, before anything is calibrated.
  DescribeVocabulary(source.checkpoint(), source.spec().vocab, choice.pre);
  GgufPlan gguf;
  gguf.layout = DescribeGguf(source.spec(), ConfigOf(source));
  gguf.types = ChooseGgufTypes(gguf.layout, choice.type, choice.embedding_type);
  RuleMatcher rules(plan.recipe.rules);
  std::vector<std::string> names;
  for (size_t i = 0; i < gguf.layout.matrices.size(); ++i) {
    const GgufMatrix& matrix = gguf.layout.matrices[i];
    if (matrix.layer < 0) continue;  // embedding and head are rounded
    const LinearSpec& linear = matrix.linear;
    names.push_back(linear.name);
    GgmlType& type = gguf.types.types[i];
    if (rules.Match(linear.name) != nullptr || !IsSolved(type)) {
      if (IsSolved(type)) {
        type = DenseGgmlType(source.checkpoint().Info(source.WeightName(linear)).dtype);
      }
      plan.dense.push_back(linear.name);
    } else {
      plan.modules.Add({linear.name, SchemeOfBlocks(type), linear.out, linear.in});
    }
  }
  rules.RequireAllMatched(names);
  CheckStacks(gguf.layout, gguf.types.types);
  plan.gguf = std::move(gguf);
}

}  // namespace

std::optional<GgmlType> QuantizePlan::BlocksOf(const std::string& name) const {
  if (!gguf) return std::nullopt;
  const std::vector<GgufMatrix>& matrices = gguf->layout.matrices;
  const auto found = std::ranges::find_if(
      matrices, [&](const GgufMatrix& m) { return m.layer >= 0 && m.linear.name == name; });
  Check(found != matrices.end(), "BlocksOf: no such layer");
  return gguf->types.types[static_cast<size_t>(found - matrices.begin())];
}

void PlannedModules::Add(QuantizedModule module) {
  index_[module.name] = modules_.size();
  modules_.push_back(std::move(module));
}

const QuantizedModule* PlannedModules::Find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &modules_[it->second];
}

QuantizePlan PlanModules(const ModelSource& source, const Recipe& recipe) {
  if (source.artifact() != nullptr) {
    throw Error(ErrorCode::kBadInput, source.path(),
                fmt::format("is quantized already ({}); quantize starts from a dense checkpoint",
                            source.artifact()->format()));
  }
  if (recipe.rotate && source.derivation() == nullptr) const Rotation throws_if_impossible(source);
  QuantizePlan plan;
  plan.recipe = recipe;
  if (recipe.gguf) {
    CheckTarget(source.spec(), plan);
    ChooseGgufSchemes(source, plan);
    if (plan.modules.all().empty()) ThrowNothingLeft();
    return plan;
  }
  ResolveScales(source, plan.recipe);
  if (recipe.quantize_head && !recipe.rotate) CheckHead(source);
  ChooseSchemes(source, plan);
  if (plan.modules.all().empty()) ThrowNothingLeft();
  CheckGroups(plan.modules);
  CheckRowBlocks(plan.modules);
  CheckFused(source.spec(), plan.modules);
  CheckTransform(plan.recipe, plan.modules);
  const ArtifactWriterFormat& format = FindArtifactFormat(recipe.format);
  for (const QuantizedModule& module : plan.modules.all()) format.CheckSupported(module);
  format.CheckTogether(plan.modules.all());
  if (recipe.kv.type != KvScheme::Type::kNone) format.CheckSupportedKv(recipe.kv);
  CheckTarget(source.spec(), plan);
  return plan;
}

}  // namespace quantmill
