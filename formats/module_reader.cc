#include "formats/module_reader.h"

#include <algorithm>

#include "formats/tensor_checks.h"
#include "kernels/core/error.h"

namespace quantmill {

ModuleReader::ModuleReader(const Checkpoint& checkpoint, std::vector<std::string_view> suffixes,
                           std::string_view code_type)
    : checkpoint_(checkpoint),
      config_path_((checkpoint.folder() / "config.json").string()),
      suffixes_(std::move(suffixes)) {
  const std::string_view codes = suffixes_.front();
  for (const std::string& name : checkpoint_.names()) {
    if (!name.ends_with(codes)) continue;
    if (!code_type.empty() && checkpoint_.Info(name).dtype != code_type) continue;
    modules_.push_back(name.substr(0, name.size() - codes.size()));
  }
  std::sort(modules_.begin(), modules_.end());
}

std::string ModuleReader::OwnerOf(const std::string& tensor) const {
  for (const std::string_view suffix : suffixes_) {
    if (!tensor.ends_with(suffix)) continue;
    std::string module = tensor.substr(0, tensor.size() - suffix.size());
    if (std::binary_search(modules_.begin(), modules_.end(), module)) return module;
  }
  return "";
}

// Files say what is quantized by what they hold: a configuration need not name it.
std::optional<QuantScheme> ModuleReader::SchemeOf(const std::string& module) const {
  if (!std::binary_search(modules_.begin(), modules_.end(), module)) return std::nullopt;
  const ModuleTensors tensors(checkpoint_, module);
  QuantScheme scheme = StoredScheme(tensors);
  const std::string_view suffix = ScaleSuffix(tensors);
  const TensorInfo& scales = tensors.Info(suffix);
  const std::optional<DType> dtype = scales.type();
  if (!dtype || !IsDenseFloat(*dtype)) {
    tensors.Fail(suffix, "is " + scales.dtype + "; scales must be F16, BF16 or F32");
  }
  scheme.scale_dtype = *dtype;
  return scheme;
}

QuantizedModule ModuleReader::Describe(const std::string& module) const {
  const std::optional<QuantScheme> scheme = SchemeOf(module);
  Check(scheme.has_value(), "Describe: the module is not stored quantized");
  const auto [out, in] = ReadShape(ModuleTensors(checkpoint_, module), *scheme);
  return {module, *scheme, out, in};
}

void ModuleReader::StartReading(const QuantizedModule& module, RowRange range,
                                QuantizedLinear& rows) const {
  const std::string dense = module.name + ".weight";
  if (range.begin == 0 && suffixes_.front() != ".weight" && checkpoint_.Has(dense)) {
    throw Error(ErrorCode::kBadInput, checkpoint_.Location(dense),
                "lies beside the packed weight of its module: which one counts?");
  }
  StartRows(module, range, rows);
}

void ModuleReader::ReadRows(const QuantizedModule& module, RowRange range,
                            QuantizedLinear& rows) const {
  StartReading(module, range, rows);
  ReadInto(ModuleTensors(checkpoint_, module.name), module, range, rows);
}

void ModuleReader::ReadWords(const QuantizedModule& module, RowRange range, RowBand& band) const {
  StartReading(module, range, band.rows);
  band.rows.codes.clear();
  ReadWordsInto(ModuleTensors(checkpoint_, module.name), module, range, band);
}

void ModuleReader::ReadWordsInto(const ModuleTensors&, const QuantizedModule&, RowRange,
                                 RowBand&) const {
  Check(false, "ReadWords: the file has no words");
}

std::vector<std::string> ModuleReader::TensorsOf(const std::string& module) const {
  std::vector<std::string> tensors;
  for (const std::string_view suffix : suffixes_) {
    std::string name = module + std::string(suffix);
    if (checkpoint_.Has(name)) tensors.push_back(std::move(name));
  }
  return tensors;
}

KvScales ModuleReader::ReadKv(const std::string&, int64_t) const {
  Check(false, "ReadKv: the file quantizes no cache");
  return {};
}

void ModuleReader::CheckModule(const std::string& module,
                               std::vector<TensorProblem>& problems) const {
  using Kind = TensorProblem::Kind;
  const std::string codes = module + std::string(suffixes_.front());
  try {
    const QuantizedLinear linear = Read(module);
    if (IsConstant(std::as_bytes(std::span(linear.codes)), 1)) {
      problems.push_back({Kind::kConstant, codes, "all codes are equal"});
    }
    if (linear.scheme.row_block != QuantScheme::kAllRows &&
        IsConstant(BytesOf(linear.scales), sizeof(float))) {
      const std::string_view suffix = ScaleSuffix(ModuleTensors(checkpoint_, module));
      problems.push_back({Kind::kConstant, module + std::string(suffix), "all scales are equal"});
    }
  } catch (const Error& error) {
    problems.push_back({Kind::kInvalid, codes, error.what()});
  }
  for (const std::string& tensor : TensorsOf(module)) checkpoint_.Release(tensor);
}

std::vector<TensorProblem> ModuleReader::CheckTensors() const {
  std::vector<TensorProblem> problems;
  for (const std::string& module : modules_) CheckModule(module, problems);
  for (const std::string& name : checkpoint_.names()) {
    if (!OwnerOf(name).empty()) continue;
    for (const std::string_view suffix : std::span(suffixes_).subspan(1)) {
      if (name.ends_with(suffix)) {
        problems.push_back({TensorProblem::Kind::kExtra, name,
                            "its module has no codes (" + std::string(suffixes_.front()) + ")"});
      }
    }
    CheckDenseTensor(checkpoint_, name, problems);
  }
  std::stable_sort(
      problems.begin(), problems.end(),
      [](const TensorProblem& a, const TensorProblem& b) { return a.tensor < b.tensor; });
  return problems;
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
