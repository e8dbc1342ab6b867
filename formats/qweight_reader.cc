#include "formats/qweight_reader.h"

#include <algorithm>

#include "formats/bitstream.h"
#include "formats/scales.h"
#include "formats/tensor_checks.h"
#include "kernels/core/error.h"

namespace quantmill {

QweightReader::QweightReader(const Checkpoint& checkpoint, std::vector<std::string_view> suffixes)
    : checkpoint_(checkpoint),
      config_path_((checkpoint.folder() / "config.json").string()),
      suffixes_(std::move(suffixes)) {
  for (const std::string& name : checkpoint.names()) {
    if (name.ends_with(kQweight)) {
      modules_.push_back(name.substr(0, name.size() - kQweight.size()));
    }
  }
  std::sort(modules_.begin(), modules_.end());
}

std::string QweightReader::OwnerOf(const std::string& tensor) const {
  for (const std::string_view suffix : suffixes_) {
    if (!tensor.ends_with(suffix)) continue;
    std::string module = tensor.substr(0, tensor.size() - suffix.size());
    if (std::binary_search(modules_.begin(), modules_.end(), module)) return module;
  }
  return "";
}

// Files say what is quantized by what they hold: a configuration need not name it.
std::optional<QuantScheme> QweightReader::SchemeOf(const std::string& module) const {
  if (!std::binary_search(modules_.begin(), modules_.end(), module)) return std::nullopt;
  const ModuleTensors tensors(checkpoint_, module);
  QuantScheme scheme = StoredScheme(tensors);
  const TensorInfo& scales = tensors.Info(kScales);
  const std::optional<DType> dtype = scales.type();
  if (!dtype || !IsDenseFloat(*dtype)) {
    tensors.Fail(kScales, "is " + scales.dtype + "; scales must be F16, BF16 or F32");
  }
  scheme.scale_dtype = *dtype;
  return scheme;
}

QuantizedModule QweightReader::Describe(const std::string& module) const {
  const std::optional<QuantScheme> scheme = SchemeOf(module);
  Check(scheme.has_value(), "Describe: the module is not stored quantized");
  const auto [out, in] = ReadShape(ModuleTensors(checkpoint_, module), *scheme);
  return {module, *scheme, out, in};
}

QuantizedLinear QweightReader::Read(const std::string& module) const {
  const QuantizedModule described = Describe(module);
  if (checkpoint_.Has(module + ".weight")) {
    throw Error(ErrorCode::kBadInput, checkpoint_.Location(module + ".weight"),
                "lies beside the packed weight of its module: which one counts?");
  }
  QuantizedLinear linear;
  linear.scheme = described.scheme;
  linear.out = described.out;
  linear.in = described.in;
  ReadInto(ModuleTensors(checkpoint_, module), linear);
  return linear;
}

std::vector<std::string> QweightReader::TensorsOf(const std::string& module) const {
  std::vector<std::string> tensors;
  for (const std::string_view suffix : suffixes_) {
    std::string name = module + std::string(suffix);
    if (checkpoint_.Has(name)) tensors.push_back(std::move(name));
  }
  return tensors;
}

KvScales QweightReader::ReadKv(const std::string&, int64_t) const {
  Check(false, "ReadKv: the file quantizes no cache");
  return {};
}

void QweightReader::CheckModule(const std::string& module,
                                std::vector<TensorProblem>& problems) const {
  using Kind = TensorProblem::Kind;
  try {
    const QuantizedLinear linear = Read(module);
    if (IsConstant(std::as_bytes(std::span(linear.codes)), 1)) {
      problems.push_back({Kind::kConstant, module + std::string(kQweight), "all codes are equal"});
    }
    if (IsConstant(BytesOf(linear.scales), sizeof(float))) {
      problems.push_back({Kind::kConstant, module + std::string(kScales), "all scales are equal"});
    }
  } catch (const Error& error) {
    problems.push_back({Kind::kInvalid, module + std::string(kQweight), error.what()});
  }
  for (const std::string& tensor : TensorsOf(module)) checkpoint_.Release(tensor);
}

std::vector<TensorProblem> QweightReader::CheckTensors() const {
  std::vector<TensorProblem> problems;
  for (const std::string& module : modules_) CheckModule(module, problems);
  for (const std::string& name : checkpoint_.names()) {
    if (!OwnerOf(name).empty()) continue;
    for (const std::string_view suffix : {kQzeros, kScales, kGroupIndex}) {
      if (name.ends_with(suffix)) {
        problems.push_back({TensorProblem::Kind::kExtra, name, "its module has no qweight"});
      }
    }
    CheckDenseTensor(checkpoint_, name, problems);
  }
  std::stable_sort(
      problems.begin(), problems.end(),
      [](const TensorProblem& a, const TensorProblem& b) { return a.tensor < b.tensor; });
  return problems;
}

std::vector<float> QweightReader::ReadTransposedScales(const ModuleTensors& tensors,
                                                       const QuantizedLinear& linear) {
  const DType dtype = linear.scheme.scale_dtype;
  const std::vector<float> stored =
      DecodeScales(tensors.Expect(kScales, NameOf(dtype), {linear.groups(), linear.out}), dtype);
  std::vector<float> scales(stored.size());
  Transpose<float>(stored, linear.groups(), linear.out, scales);
  if (const std::optional<std::string> bad = FindBadScale(scales, SignOf(linear.scheme))) {
    tensors.Fail(kScales, *bad + " (counted output by output)");
  }
  return scales;
}

std::vector<std::byte> TransposedScales(const QuantizedLinear& linear) {
  std::vector<float> stored(linear.scales.size());
  Transpose<float>(linear.scales, linear.out, linear.groups(), stored);
  return EncodeScales(stored, DType::kF16, SignOf(linear.scheme));
}

void WriterWithoutCache::CheckSupportedKv(const KvScheme& kv) const {
  if (kv.type == KvScheme::Type::kNone) return;
  throw Error(ErrorCode::kUsage, "--kv-scheme",
              std::string(name()) +
                  " files hold no scales of a key-value cache; compressed-tensors ones do");
}

std::vector<TensorDeclaration> WriterWithoutCache::DeclareKv(const std::string&, const KvScheme& kv,
                                                             int64_t) const {
  CheckSupportedKv(kv);
  return {};
}

void WriterWithoutCache::WriteKv(const std::string&, const KvScales&, CheckpointWriter&) const {
  Check(false, "WriteKv: the format has no cache");
}

}  // namespace quantmill
