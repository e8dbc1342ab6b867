// Reading: tensors -> QuantizedLinear, and the checks of a whole file.
#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "formats/bitstream.h"
#include "formats/compressed_tensors.h"
#include "formats/compressed_tensors_config.h"
#include "formats/scales.h"
#include "formats/tensor_checks.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kPacked = ".weight_packed";
constexpr std::string_view kScale = ".weight_scale";
constexpr std::string_view kZeroPoint = ".weight_zero_point";
constexpr std::string_view kShape = ".weight_shape";

// Tensors that belong to a packed module, and those of schemes that this reader refuses.
constexpr std::array kOwnSuffixes = {kPacked, kScale, kZeroPoint, kShape};
constexpr std::array<std::string_view, 8> kForeignSuffixes = {
    ".weight_g_idx", ".weight_global_scale", ".input_scale",      ".input_zero_point",
    ".output_scale", ".input_global_scale",  ".weight_scale_inv", ".qweight"};

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

// Words of 32 bits from bytes of any alignment.
std::vector<uint32_t> ToWords(std::span<const std::byte> bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint32_t));
  return words;
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
      if (const std::string module = ModuleOf(name, kOwnSuffixes); !module.empty()) {
        found.insert(module);
      }
    }
    modules_.assign(found.begin(), found.end());
  }

  std::string_view format() const override { return "compressed-tensors"; }
  const std::vector<std::string>& modules() const override { return modules_; }

  std::optional<QuantScheme> SchemeOf(const std::string& module) const override;
  QuantizedModule Describe(const std::string& module) const override;
  QuantizedLinear Read(const std::string& module) const override;
  std::vector<std::string> TensorsOf(const std::string& module) const override;
  std::vector<TensorProblem> CheckTensors() const override;

 private:
  [[noreturn]] void ThrowAt(const std::string& tensor, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, checkpoint_.Location(tensor), what);
  }
  [[noreturn]] void ThrowConfig(const std::string& module, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, config_path_, "module '" + module + "' " + what);
  }
  bool IsPacked(const std::string& module) const {
    return std::binary_search(modules_.begin(), modules_.end(), module);
  }
  // Throws if the tensor is missing or differs from what the module's size asks for.
  const TensorInfo& Expect(const std::string& tensor, std::string_view dtype,
                           const std::vector<int64_t>& shape) const;
  std::pair<int64_t, int64_t> ReadShape(const std::string& module) const;
  void ReadCodes(const std::string& module, QuantizedLinear& linear) const;
  void ReadScales(const std::string& module, QuantizedLinear& linear) const;
  void ReadZeroPoints(const std::string& module, QuantizedLinear& linear) const;
  void CheckModule(const std::string& module, std::vector<TensorProblem>& problems) const;

  const Checkpoint& checkpoint_;
  std::string config_path_;
  CompressedTensorsConfig config_;
  std::vector<std::string> modules_;  // sorted
};

std::optional<QuantScheme> Reader::SchemeOf(const std::string& module) const {
  const std::optional<PackedWeightArgs> args = config_.ArgsFor(module);
  if (!args) {
    if (IsPacked(module))
      ThrowConfig(module, "is packed, but no target names it, or it is ignored");
    return std::nullopt;
  }
  if (!IsPacked(module)) {
    // A head tied to the embedding has no tensor of its own.
    if (!checkpoint_.Has(module + ".weight")) return std::nullopt;
    ThrowConfig(module, "is a target of quantization, but was left dense");
  }
  const std::string name = Join(module, kScale);
  if (!checkpoint_.Has(name)) ThrowConfig(module, "has no tensor '" + name + "'");
  const TensorInfo& scale = checkpoint_.Info(name);
  const std::optional<DType> dtype = scale.type();
  if (!dtype || !IsDenseFloat(*dtype)) {
    ThrowAt(name, "is " + scale.dtype + "; scales must be F32, F16 or BF16");
  }
  QuantScheme scheme;
  scheme.bits = args->bits;
  scheme.symmetric = args->symmetric;
  scheme.group_size = args->group_size;
  scheme.scale_dtype = *dtype;
  return scheme;
}

const TensorInfo& Reader::Expect(const std::string& tensor, std::string_view dtype,
                                 const std::vector<int64_t>& shape) const {
  if (!checkpoint_.Has(tensor)) {
    throw Error(ErrorCode::kBadInput, checkpoint_.folder().string(),
                "has no tensor '" + tensor + "', which its module needs");
  }
  const TensorInfo& info = checkpoint_.Info(tensor);
  if (info.dtype != dtype || info.shape != shape) {
    ThrowAt(tensor, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                        std::string(dtype) + " " + ShapeString(shape));
  }
  return info;
}

std::pair<int64_t, int64_t> Reader::ReadShape(const std::string& module) const {
  const std::string name = Join(module, kShape);
  Expect(name, "I64", {2});
  std::array<int64_t, 2> shape{};
  std::memcpy(shape.data(), checkpoint_.Bytes(name).data(), sizeof(shape));
  // The bound keeps every product of sizes below inside 64 bits.
  constexpr int64_t kMax = int64_t{1} << 28;
  if (shape[0] < 1 || shape[1] < 1 || shape[0] > kMax || shape[1] > kMax) {
    ThrowAt(name, "holds the impossible shape " + ShapeString(shape));
  }
  return {shape[0], shape[1]};
}

QuantizedModule Reader::Describe(const std::string& module) const {
  const std::optional<QuantScheme> scheme = SchemeOf(module);
  if (!scheme) ThrowConfig(module, "is not stored quantized");
  const auto [out, in] = ReadShape(module);
  return {module, *scheme, out, in};
}

void Reader::ReadCodes(const std::string& module, QuantizedLinear& linear) const {
  const std::string name = Join(module, kPacked);
  const int bits = linear.scheme.bits;
  const int64_t row_words = WordsPerRow(linear.in, bits);
  const int64_t old_words = (linear.in + 32 / bits - 1) / (32 / bits);
  if (checkpoint_.Has(name) && old_words != row_words &&
      checkpoint_.Info(name).shape == std::vector{linear.out, old_words}) {
    ThrowAt(name, "was packed by an old library that padded each word; such files cannot be read");
  }
  Expect(name, "I32", {linear.out, row_words});
  const std::vector<uint32_t> words = ToWords(checkpoint_.Bytes(name));
  if (const std::optional<int64_t> row = FindDirtyPadding(words, linear.out, linear.in, bits)) {
    ThrowAt(name, "row " + std::to_string(*row) + " has bits set past its last code");
  }
  linear.codes.resize(static_cast<size_t>(linear.out * linear.in));
  UnpackCodes(words, linear.out, linear.in, bits, linear.codes);
}

void Reader::ReadScales(const std::string& module, QuantizedLinear& linear) const {
  const std::string name = Join(module, kScale);
  Expect(name, NameOf(linear.scheme.scale_dtype), {linear.out, linear.groups()});
  linear.scales = DecodeScales(checkpoint_.Bytes(name), linear.scheme.scale_dtype);
  if (const std::optional<std::string> bad = FindBadScale(linear.scales)) {
    ThrowAt(name, *bad + "; scales must be finite and above zero");
  }
}

void Reader::ReadZeroPoints(const std::string& module, QuantizedLinear& linear) const {
  const std::string name = Join(module, kZeroPoint);
  if (linear.scheme.symmetric) {
    if (checkpoint_.Has(name)) ThrowAt(name, "zero points of a scheme that is declared symmetric");
    return;
  }
  const int bits = linear.scheme.bits;
  const int64_t groups = linear.groups();
  const int64_t row_words = WordsPerRow(linear.out, bits);
  Expect(name, "I32", {row_words, groups});
  const std::vector<uint32_t> stored = ToWords(checkpoint_.Bytes(name));
  std::vector<uint32_t> words(stored.size());
  Transpose<uint32_t>(stored, row_words, groups, words);
  if (const std::optional<int64_t> group = FindDirtyPadding(words, groups, linear.out, bits)) {
    ThrowAt(name, "column " + std::to_string(*group) + " has bits set past its last zero point");
  }
  std::vector<int8_t> by_group(static_cast<size_t>(groups * linear.out));
  UnpackCodes(words, groups, linear.out, bits, by_group);
  linear.zero_points.resize(by_group.size());
  Transpose<int8_t>(by_group, groups, linear.out, linear.zero_points);
}

QuantizedLinear Reader::Read(const std::string& module) const {
  const QuantizedModule described = Describe(module);
  if (const std::string index = module + ".weight_g_idx"; checkpoint_.Has(index)) {
    ThrowAt(index, "act-order indices cannot be read");
  }
  QuantizedLinear linear;
  linear.scheme = described.scheme;
  linear.out = described.out;
  linear.in = described.in;
  ReadScales(module, linear);  // small: a wrong shape is found before the codes are unpacked
  ReadZeroPoints(module, linear);
  ReadCodes(module, linear);
  return linear;
}

std::vector<std::string> Reader::TensorsOf(const std::string& module) const {
  std::vector<std::string> tensors;
  for (const std::string_view suffix : kOwnSuffixes) {
    if (checkpoint_.Has(Join(module, suffix))) tensors.push_back(Join(module, suffix));
  }
  return tensors;
}

void Reader::CheckModule(const std::string& module, std::vector<TensorProblem>& problems) const {
  using Kind = TensorProblem::Kind;
  const size_t before = problems.size();
  for (const std::string_view suffix : {kPacked, kScale, kShape}) {
    if (!checkpoint_.Has(Join(module, suffix))) {
      problems.push_back({Kind::kMissing, Join(module, suffix), "its module is packed"});
    }
  }
  if (checkpoint_.Has(module + ".weight")) {
    problems.push_back({Kind::kExtra, module + ".weight", "its module is also stored packed"});
  }
  if (problems.size() != before) return;
  try {
    const QuantizedLinear linear = Read(module);
    if (IsConstant(std::as_bytes(std::span(linear.codes)), 1)) {
      problems.push_back({Kind::kConstant, Join(module, kPacked), "all codes are equal"});
    }
    if (IsConstant(std::as_bytes(std::span(linear.scales)), sizeof(float))) {
      problems.push_back({Kind::kConstant, Join(module, kScale), "all scales are equal"});
    }
  } catch (const Error& error) {
    problems.push_back({Kind::kInvalid, Join(module, kPacked), error.what()});
  }
  for (const std::string& tensor : TensorsOf(module)) checkpoint_.Release(tensor);
}

std::vector<TensorProblem> Reader::CheckTensors() const {
  using Kind = TensorProblem::Kind;
  std::vector<TensorProblem> problems;
  for (const std::string& module : config_.exact_targets()) {
    if (!IsPacked(module)) {
      problems.push_back({Kind::kMissing, Join(module, kPacked), "the configuration names it"});
    }
  }
  for (const std::string& module : modules_) CheckModule(module, problems);
  for (const std::string& name : checkpoint_.names()) {
    if (!ModuleOf(name, kOwnSuffixes).empty()) continue;
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
