// Reading: tensors -> QuantizedLinear, and the checks of a whole file.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "formats/compressed_tensors.h"
#include "formats/compressed_tensors/config.h"
#include "formats/compressed_tensors/kv_scales.h"
#include "formats/compressed_tensors/layout.h"
#include "formats/group_index.h"
#include "formats/scales.h"
#include "formats/tensor_checks.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Tensors that belong to a quantized module, and those of schemes that this reader refuses. A
// ".weight" belongs to one if its type is that of codes.
constexpr std::array kOwnSuffixes = {kPacked,     kScale,          kZeroPoint,
                                     kShape,      kGlobalScale,    kWeightGroupIndex,
                                     kInputScale, kInputZeroPoint, kInputGlobalScale};
constexpr std::array<std::string_view, 5> kForeignSuffixes = {
    ".output_scale", ".output_zero_point", ".weight_scale_inv", ".qweight", ".kv_scale"};
constexpr std::array kKvSuffixes = {kKeyScale, kValueScale};

// The module of a tensor with one of the suffixes, or "".
template <size_t kCount>
std::string ModuleOf(const std::string& tensor,
                     const std::array<std::string_view, kCount>& suffixes) {
  for (const std::string_view suffix : suffixes) {
    if (tensor.ends_with(suffix)) return tensor.substr(0, tensor.size() - suffix.size());
  }
  return "";
}

std::string Join(const std::string& module, std::string_view suffix) {
  return module + std::string(suffix);
}

class Reader final : public ArtifactReader {
 public:
  explicit Reader(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint),
        config_path_((checkpoint.folder() / "config.json").string()),
        config_(CompressedTensorsConfig::Parse(checkpoint.config().at("quantization_config"),
                                               config_path_)) {
    std::set<std::string> found;
    for (const std::string& name : checkpoint_.names()) {
      if (const std::string module = OwnerOf(name); !module.empty()) found.insert(module);
    }
    modules_.assign(found.begin(), found.end());
  }

  std::string_view format() const override { return "compressed-tensors"; }
  const std::vector<std::string>& modules() const override { return modules_; }

  std::optional<QuantScheme> SchemeOf(const std::string& module) const override;
  QuantizedModule Describe(const std::string& module) const override;
  void ReadRows(const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override;
  bool HasWords(const QuantizedModule& module) const override {
    return LayoutFor(module.name, module.scheme).HasWords() && !config_.HasActOrder(module.name);
  }
  void ReadWords(const QuantizedModule& module, RowRange range, RowBand& band) const override;
  std::vector<std::string> TensorsOf(const std::string& module) const override;
  std::vector<TensorProblem> CheckTensors() const override;

  KvScheme kv_scheme() const override { return config_.kv_scheme(); }
  KvScales ReadKv(const std::string& attention, int64_t kv_heads) const override {
    Check(kv_scheme().type == KvScheme::Type::kFp8, "ReadKv: the file quantizes no cache");
    return {ReadKvScale(checkpoint_, attention, kKeyScale, kv_scheme(), kv_heads),
            ReadKvScale(checkpoint_, attention, kValueScale, kv_scheme(), kv_heads)};
  }
  std::vector<std::string> KvTensorsOf(const std::string& attention) const override {
    std::vector<std::string> tensors;
    for (const std::string_view suffix : kKvSuffixes) {
      if (checkpoint_.Has(Join(attention, suffix))) tensors.push_back(Join(attention, suffix));
    }
    return tensors;
  }

 private:
  [[noreturn]] void ThrowConfig(const std::string& module, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, config_path_, "module '" + module + "' " + what);
  }
  bool IsQuantized(const std::string& module) const {
    return std::binary_search(modules_.begin(), modules_.end(), module);
  }
  bool HoldsCodes(const std::string& tensor) const {
    const std::string& dtype = checkpoint_.Info(tensor).dtype;
    return dtype == NameOf(DType::kI8) || dtype == NameOf(DType::kF8E4M3);
  }
  // The quantized module that a tensor belongs to, or "".
  std::string OwnerOf(const std::string& tensor) const {
    if (std::string module = ModuleOf(tensor, kOwnSuffixes); !module.empty()) return module;
    std::string module = ModuleOf(tensor, std::array{kWeight});
    return !module.empty() && HoldsCodes(tensor) ? module : "";
  }
  const CompressedTensorsLayout& LayoutFor(const std::string& module,
                                           const QuantScheme& scheme) const {
    return StoredLayout(scheme, checkpoint_.Has(Join(module, kPacked)));
  }
  // Nothing also where groups contradict each other, or no target names the module: Read tells.
  std::optional<QuantScheme> DeclaredScheme(const std::string& module) const {
    try {
      return config_.SchemeFor(module);
    } catch (const Error&) {
      return std::nullopt;
    }
  }
  // The tensors of a module that is declared so, the one with the codes first.
  std::vector<std::string_view> SuffixesOf(const std::string& module,
                                           const QuantScheme& scheme) const;
  std::vector<std::string> SurplusOf(const std::string& module, const QuantScheme& scheme) const;
  void CheckNoSurplus(const QuantizedModule& module) const;
  void CheckModule(const std::string& module, std::vector<TensorProblem>& problems) const;
  void CheckContents(const std::string& module, std::vector<TensorProblem>& problems) const;
  void CheckKvTensor(const std::string& tensor, std::vector<TensorProblem>& problems) const;

  const Checkpoint& checkpoint_;
  std::string config_path_;
  CompressedTensorsConfig config_;
  std::vector<std::string> modules_;  // sorted
};

std::optional<QuantScheme> Reader::SchemeOf(const std::string& module) const {
  std::optional<QuantScheme> scheme = config_.SchemeFor(module);
  if (!scheme) {
    if (IsQuantized(module))
      ThrowConfig(module, "is quantized, but no target names it, or it is ignored");
    return std::nullopt;
  }
  if (!IsQuantized(module)) {
    // A head tied to the embedding has no tensor of its own.
    if (!checkpoint_.Has(Join(module, kWeight))) return std::nullopt;
    ThrowConfig(module, "is a target of quantization, but was left dense");
  }
  if (scheme->scale_dtype != DType::kF32) return scheme;  // the scheme says the type
  const ModuleTensors tensors(checkpoint_, module);
  if (!tensors.Has(kScale)) {
    ThrowConfig(module, "has no tensor '" + tensors.Name(kScale) + "'");
  }
  const TensorInfo& scale = tensors.Info(kScale);
  const std::optional<DType> dtype = scale.type();
  if (!dtype || !IsDenseFloat(*dtype)) {
    tensors.Fail(kScale, "is " + scale.dtype + "; scales must be F32, F16 or BF16");
  }
  scheme->scale_dtype = *dtype;
  if (config_.HasActOrder(module)) {
    const int64_t in = LayoutFor(module, *scheme).ReadShape(tensors).second;
    const auto index = GroupIndex::Read(tensors, kWeightGroupIndex, in, scheme->GroupsFor(in));
    if (!index.IsInOrder(scheme->group_size)) {
      scheme->group_size = index.RunLength(scheme->group_size);
    }
  }
  return scheme;
}

QuantizedModule Reader::Describe(const std::string& module) const {
  const std::optional<QuantScheme> scheme = SchemeOf(module);
  if (!scheme) ThrowConfig(module, "is not stored quantized");
  const ModuleTensors tensors(checkpoint_, module);
  const auto [out, in] = LayoutFor(module, *scheme).ReadShape(tensors);
  return {module, *scheme, out, in};
}

std::vector<std::string_view> Reader::SuffixesOf(const std::string& module,
                                                 const QuantScheme& scheme) const {
  std::vector<std::string_view> suffixes = LayoutFor(module, scheme).Suffixes(scheme);
  if (config_.HasActOrder(module)) suffixes.push_back(kWeightGroupIndex);
  return suffixes;
}

// Tensors that the module has, but a module of its scheme does not.
std::vector<std::string> Reader::SurplusOf(const std::string& module,
                                           const QuantScheme& scheme) const {
  const std::vector<std::string_view> wanted = SuffixesOf(module, scheme);
  std::vector<std::string> surplus;
  const auto look_for = [&](std::string_view suffix) {
    const bool expected = std::find(wanted.begin(), wanted.end(), suffix) != wanted.end();
    if (!expected && checkpoint_.Has(Join(module, suffix))) surplus.push_back(Join(module, suffix));
  };
  for (const std::string_view suffix : kOwnSuffixes) look_for(suffix);
  look_for(kWeight);
  return surplus;
}

void Reader::ReadRows(const QuantizedModule& module, RowRange range, QuantizedLinear& rows) const {
  if (range.begin == 0) CheckNoSurplus(module);
  StartRows(module, range, rows);
  const ModuleTensors tensors(checkpoint_, module.name);
  if (!config_.HasActOrder(module.name)) {
    LayoutFor(module.name, module.scheme).ReadRows(tensors, module, range, rows);
    return;
  }
  QuantizedModule declared = module;  // with the groups of the file
  declared.scheme.group_size = config_.SchemeFor(module.name)->group_size;
  QuantizedLinear stored;
  StartRows(declared, range, stored);
  LayoutFor(module.name, declared.scheme).ReadRows(tensors, declared, range, stored);
  GroupIndex::Read(tensors, kWeightGroupIndex, rows.in, stored.groups()).Spread(stored, rows);
  rows.codes = std::move(stored.codes);
}

void Reader::ReadWords(const QuantizedModule& module, RowRange range, RowBand& band) const {
  if (range.begin == 0) CheckNoSurplus(module);
  StartRows(module, range, band.rows);
  band.rows.codes.clear();
  LayoutFor(module.name, module.scheme)
      .ReadWords(ModuleTensors(checkpoint_, module.name), module, range, band);
}

void Reader::CheckNoSurplus(const QuantizedModule& module) const {
  for (const std::string& tensor : SurplusOf(module.name, module.scheme)) {
    throw Error(ErrorCode::kBadInput, checkpoint_.Location(tensor),
                "is not part of a module that is declared " + quantmill::Describe(module.scheme));
  }
}

std::vector<std::string> Reader::TensorsOf(const std::string& module) const {
  std::vector<std::string> tensors;
  const std::string weight = Join(module, kWeight);
  if (checkpoint_.Has(weight) && HoldsCodes(weight)) tensors.push_back(weight);
  for (const std::string_view suffix : kOwnSuffixes) {
    if (checkpoint_.Has(Join(module, suffix))) tensors.push_back(Join(module, suffix));
  }
  return tensors;
}

void Reader::CheckModule(const std::string& module, std::vector<TensorProblem>& problems) const {
  using Kind = TensorProblem::Kind;
  const size_t before = problems.size();
  if (const std::optional<QuantScheme> scheme = DeclaredScheme(module)) {
    for (const std::string_view suffix : SuffixesOf(module, *scheme)) {
      if (!checkpoint_.Has(Join(module, suffix))) {
        problems.push_back({Kind::kMissing, Join(module, suffix),
                            "its module is declared " + quantmill::Describe(*scheme)});
      }
    }
    for (const std::string& tensor : SurplusOf(module, *scheme)) {
      problems.push_back(
          {Kind::kExtra, tensor, "its module is declared " + quantmill::Describe(*scheme)});
    }
  }
  if (problems.size() == before) CheckContents(module, problems);
  for (const std::string& tensor : TensorsOf(module)) checkpoint_.Release(tensor);
}

void Reader::CheckContents(const std::string& module, std::vector<TensorProblem>& problems) const {
  using Kind = TensorProblem::Kind;
  try {
    const QuantizedLinear linear = Read(module);
    const QuantScheme& scheme = linear.scheme;
    if (IsConstant(std::as_bytes(std::span(linear.codes)), 1)) {
      const std::string_view suffix = SuffixesOf(module, scheme).front();
      problems.push_back({Kind::kConstant, Join(module, suffix), "all codes are equal"});
    }
    // Few powers of two cover a layer, so that all may well be equal; one scale of the whole
    // tensor is.
    if (scheme.scale_dtype != DType::kF8E8M0 &&
        IsConstant(BytesOf(OneScaleOfRowBlock(linear)), sizeof(float))) {
      problems.push_back({Kind::kConstant, Join(module, kScale), "all scales are equal"});
    }
  } catch (const Error& error) {
    problems.push_back({Kind::kInvalid, TensorsOf(module).front(), error.what()});
  }
}

void Reader::CheckKvTensor(const std::string& tensor, std::vector<TensorProblem>& problems) const {
  using Kind = TensorProblem::Kind;
  if (kv_scheme().type == KvScheme::Type::kNone) {
    problems.push_back({Kind::kExtra, tensor, "the configuration quantizes no cache"});
    return;
  }
  try {
    const std::string attention = ModuleOf(tensor, kKvSuffixes);
    // The number of heads is the model's business; here any will do.
    ReadKvScale(checkpoint_, attention, tensor.ends_with(kKeyScale) ? kKeyScale : kValueScale,
                kv_scheme(), std::max<int64_t>(1, checkpoint_.Info(tensor).elements()));
  } catch (const Error& error) {
    problems.push_back({Kind::kInvalid, tensor, error.what()});
  }
}

std::vector<TensorProblem> Reader::CheckTensors() const {
  using Kind = TensorProblem::Kind;
  std::vector<TensorProblem> problems;
  for (const std::string& module : config_.exact_targets()) {
    if (!IsQuantized(module)) {
      const QuantScheme scheme = DeclaredScheme(module).value_or(QuantScheme{});
      problems.push_back({Kind::kMissing, Join(module, LayoutOf(scheme).Suffixes(scheme).front()),
                          "the configuration names it"});
    }
  }
  for (const std::string& module : modules_) CheckModule(module, problems);
  for (const std::string& name : checkpoint_.names()) {
    if (!OwnerOf(name).empty()) continue;
    if (!ModuleOf(name, kKvSuffixes).empty()) {
      CheckKvTensor(name, problems);
      continue;
    }
    // A dense weight beside packed codes is told with its module.
    if (!ModuleOf(name, kForeignSuffixes).empty()) {
      problems.push_back({Kind::kExtra, name, "belongs to a scheme that is not configured"});
    }
    CheckDenseTensor(checkpoint_, name, problems);
  }
  std::stable_sort(
      problems.begin(), problems.end(),
      [](const TensorProblem& a, const TensorProblem& b) { return a.tensor < b.tensor; });
  return problems;
}

}  // namespace

std::unique_ptr<ArtifactReader> OpenCompressedTensors(const Checkpoint& checkpoint) {
  return std::make_unique<Reader>(checkpoint);
}

}  // namespace quantmill
