#include "quant/pipeline/convert.h"

#include <fmt/format.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "formats/checkpoint_writer.h"
#include "formats/json.h"
#include "formats/output_folder.h"
#include "formats/sha256.h"
#include "formats/zero_points.h"
#include "kernels/core/error.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/module_bands.h"
#include "quant/pipeline/same_values.h"
#include "quant/pipeline/stopwatch.h"
#include "quant/verify/record.h"

namespace quantmill {
namespace {

void CheckConvertible(const ModelSource& source, const std::string& output) {
  CheckOutputPath(source, output);
  const Checkpoint& checkpoint = source.checkpoint();
  for (const LinearSpec* linear : source.spec().Linears()) {
    if (!checkpoint.is_image() || source.SchemeOf(*linear)) continue;
    const std::string type = checkpoint.Stored(source.WeightName(*linear)).type;
    if (DTypeFromName(type)) continue;
    throw Error(ErrorCode::kUsage, linear->name,
                "is " + type +
                    ", whose values no other format holds; without --format the file "
                    "becomes a dense folder");
  }
  if (source.artifact() != nullptr && !source.artifact()->modules().empty()) return;
  throw Error(ErrorCode::kUsage, source.path(),
              "is dense: convert repacks quantized weights; quantize makes them");
}

// What both conversions write beside the weights.
class Output {
 public:
  Output(const ModelSource& source, const std::string& path, bool force)
      : source_(source), folder_(path, force) {}

  OutputFolder& folder() { return folder_; }

  // For what `packer` makes of the modules, and the tensors that no module of the source owns.
  CheckpointWriter NewWriter(const RowPacker& packer, std::span<const QuantizedModule> modules) {
    std::vector<TensorDeclaration> declarations;
    for (const QuantizedModule& module : modules) {
      for (TensorDeclaration& d : packer.Declare(module)) declarations.push_back(std::move(d));
    }
    for (const std::string& name : DenseTensors()) {
      const TensorInfo& info = source_.checkpoint().Info(name);
      declarations.push_back({name, info.dtype, info.shape});
    }
    return CheckpointWriter(folder_, std::move(declarations));
  }

  void CopyDenseTensors(CheckpointWriter& writer) const {
    const Checkpoint& checkpoint = source_.checkpoint();
    for (const std::string& name : DenseTensors()) {
      checkpoint.ForEachPiece(name, [&](uint64_t at, std::span<const std::byte> bytes) {
        writer.WriteAt(name, at, bytes);
      });
      if (checkpoint.Info(name).bytes() == 0) writer.Write(name, {});
    }
  }

  // quantization: null for a dense checkpoint.
  void WriteFiles(const nlohmann::json& quantization) {
    nlohmann::json config = source_.checkpoint().config();
    config.erase("quantization_config");
    if (!quantization.is_null()) config["quantization_config"] = quantization;
    folder_.WriteText("config.json", config.dump(2) + "\n");
    for (const std::string& name : source_.checkpoint().other_files().copied) {
      // They speak of the source's format.
      if (name == kRecordName || name == "recipe.yaml" || name == "quantize_config.json" ||
          name == "quant_config.json") {
        continue;
      }
      folder_.WriteText(name, *source_.checkpoint().ReadFile(name));
    }
  }

 private:
  std::vector<std::string> DenseTensors() const {
    const ArtifactReader& reader = *source_.artifact();
    std::set<std::string> owned;
    for (const std::string& module : reader.modules()) {
      for (const std::string& tensor : reader.TensorsOf(module)) owned.insert(tensor);
    }
    for (const BlockSpec& block : source_.spec().blocks) {
      if (reader.kv_scheme().type == KvScheme::Type::kNone) break;
      for (const std::string& tensor : reader.KvTensorsOf(block.attention)) owned.insert(tensor);
    }
    std::vector<std::string> dense;
    for (const std::string& name : source_.checkpoint().names()) {
      if (!owned.contains(name)) dense.push_back(name);
    }
    return dense;
  }

  const ModelSource& source_;
  OutputFolder folder_;
};

class Conversion {
 public:
  Conversion(const ModelSource& source, const ArtifactWriterFormat& format,
             const std::string& output, bool force, ThreadPool& pool,
             const ConvertProgress& progress)
      : source_(source),
        format_(format),
        pool_(pool),
        progress_(progress),
        input_(*source.artifact(), source.checkpoint(), pool),
        output_(source, output, force) {}

  void Run() {
    ChooseSchemes();
    CheckSupported();
    Repack();
    output_.WriteFiles(format_.QuantizationConfig(targets_, DenseLinears(), {}));
    WriteRecord();
    Prove();
    output_.folder().Commit();
  }

  int64_t layers() const { return std::ssize(targets_); }

 private:
  void ChooseSchemes();
  bool IsInDisguise();
  void CheckSupported() const;
  void Repack();
  void Rewrite(size_t index, int64_t first, QuantizedLinear& band) const;
  std::vector<std::string> DenseLinears() const;
  void WriteRecord();
  void Prove();

  const ModelSource& source_;
  const ArtifactWriterFormat& format_;
  ThreadPool& pool_;
  const ConvertProgress& progress_;
  ModuleBands input_;
  Output output_;
  std::vector<QuantizedModule> targets_;  // as the output holds them
};

// Whether the source has zero points only because its format has no symmetric groups.
bool Conversion::IsInDisguise() {
  if (source_.artifact()->format() != "awq") return false;
  std::atomic<bool> in_disguise = true;
  for (size_t i = 0; i < targets_.size() && in_disguise; ++i) {
    input_.ForEach(i, ModuleBands::Codes::kBytes, [&](int64_t, const RowBand& band, int) {
      if (!IsSymmetricInDisguise(band.rows)) in_disguise = false;
    });
  }
  return in_disguise;
}

// The source's schemes, with the scale type and the zero points that the format has.
void Conversion::ChooseSchemes() {
  targets_ = input_.modules();
  const bool in_disguise = !format_.needs_zero_points() && IsInDisguise();
  for (QuantizedModule& module : targets_) {
    if (module.scheme.code_type == CodeType::kFp4) continue;
    if (format_.scale_type()) module.scheme.scale_dtype = *format_.scale_type();
    if (module.scheme.code_type != CodeType::kInt) continue;
    if (in_disguise) module.scheme.symmetric = true;
    if (format_.needs_zero_points()) module.scheme.symmetric = false;
  }
}

void Conversion::CheckSupported() const {
  // A refusal is of the layer as the source has it: a user knows nothing of the zero points and
  // scale types that it would get.
  const auto check = [](const auto& target, const auto& source, const auto& supported) {
    try {
      supported(target);
    } catch (const Error&) {
      supported(source);
      throw;
    }
  };
  for (size_t i = 0; i < targets_.size(); ++i) {
    const QuantizedModule& module = targets_[i];
    if (module.scheme.group_size == 1) {
      throw Error(ErrorCode::kUsage, module.name,
                  "act-order scattered the inputs of its groups (g_idx), so that each has a scale "
                  "of its own, which would make the file several times as large; "
                  "--dequantize f16 writes a dense checkpoint");
    }
    check(module, input_.modules()[i],
          [&](const QuantizedModule& held) { format_.CheckSupported(held); });
  }
  check(targets_, input_.modules(),
        [&](const std::vector<QuantizedModule>& held) { format_.CheckTogether(held); });
  format_.CheckSupportedKv(source_.kv_scheme());
}

// Outputs from `first` on, to the scheme of the target, with the same values.
void Conversion::Rewrite(size_t index, int64_t first, QuantizedLinear& band) const {
  const QuantScheme& wanted = targets_[index].scheme;
  if (band.scheme.symmetric && !wanted.symmetric) ToAsymmetric(band);
  if (!band.scheme.symmetric && wanted.symmetric) ToSymmetric(band);
  const int64_t groups = band.groups();
  const bool same_type = band.scheme.scale_dtype == wanted.scale_dtype;
  for (int64_t i = 0; i < band.out * groups && !same_type; ++i) {
    const float scale = band.scales[static_cast<size_t>(i)];
    if (RoundTo(wanted.scale_dtype, scale) == scale) continue;
    throw Error(ErrorCode::kUsage, targets_[index].name,
                fmt::format("scale {} of output {} is {:.9g}, which {} scales ({}) do not hold "
                            "exactly: this file cannot be repacked without loss",
                            i % groups, first + i / groups, scale, NameOf(wanted.scale_dtype),
                            format_.name()));
  }
  band.scheme = wanted;
}

void Conversion::Repack() {
  CheckpointWriter writer = output_.NewWriter(format_, targets_);
  input_.Repack(
      format_, targets_,
      [&](size_t i, int64_t first, QuantizedLinear& band) { Rewrite(i, first, band); },
      [&](size_t i) {
        progress_("converting", static_cast<int64_t>(i), layers(), targets_[i].name);
      },
      writer);
  output_.CopyDenseTensors(writer);
  writer.Finish();
}

std::vector<std::string> Conversion::DenseLinears() const {
  std::vector<std::string> dense;
  const auto add = [&](const LinearSpec& linear) {
    if (!source_.SchemeOf(linear)) dense.push_back(linear.name);
  };
  for (const BlockSpec& block : source_.spec().blocks) {
    for (const LinearSpec* linear : block.RoutingLinears()) add(*linear);
  }
  for (const LinearSpec* linear : source_.spec().Linears()) add(*linear);
  for (const LinearSpec* linear : source_.spec().Projections()) add(*linear);
  add(source_.spec().lm_head);
  return source_.spec().LoaderNames(dense);
}

// The source's record, of these files and schemes: errors of weights stay, since values do.
void Conversion::WriteRecord() {
  const std::filesystem::path old = source_.checkpoint().folder() / kRecordName;
  if (!std::filesystem::exists(old)) return;
  nlohmann::json record = ReadJsonFile(old);
  std::map<std::string, std::string> schemes;
  for (const QuantizedModule& module : targets_) schemes[module.name] = Describe(module.scheme);
  for (nlohmann::json& layer : record.at("layers")) {
    layer["scheme"] = schemes.at(layer.at("name").get<std::string>());
  }
  record["files"] = nlohmann::json::object();
  for (const auto& entry : std::filesystem::directory_iterator(output_.folder().path())) {
    record["files"][entry.path().filename().string()] = HashFile(entry.path());
  }
  record["converted"] = {{"from", source_.artifact()->format()}, {"to", format_.name()}};
  output_.folder().WriteText(kRecordName, record.dump(1) + "\n");
}

// Every value of the output, decoded by its own format, against the source's.
void Conversion::Prove() {
  const Checkpoint written = Checkpoint::Open(output_.folder().path().string());
  const auto reader = OpenArtifactReader(written);
  Check(reader != nullptr, "the output has no quantization_config");
  std::vector<RowBand> repacked(static_cast<size_t>(pool_.threads()));
  for (size_t i = 0; i < targets_.size(); ++i) {
    const std::string& name = targets_[i].name;
    progress_("comparing", static_cast<int64_t>(i), layers(), name);
    const QuantizedModule module = reader->Describe(name);
    const auto codes = input_.CodesBetween(i, module, reader->HasWords(module));
    const auto compare = [&](int64_t first, RowBand& band, int thread) {
      RowBand& rows = repacked[static_cast<size_t>(thread)];
      ModuleBands::Read(*reader, module, {first, first + band.rows.out}, codes, rows);
      const std::optional<int64_t> row = FindDifferentRow(band, rows);
      if (!row) return;
      throw Error(ErrorCode::kVerification, name,
                  fmt::format("output {} decodes to other values than the source; nothing was "
                              "kept. This is a bug of quantmill or of the disk",
                              first + *row));
    };
    input_.ForEach(i, codes, compare, [&] {
      for (const std::string& tensor : reader->TensorsOf(name)) written.Release(tensor);
    });
  }
}

// Weights as floats of `dtype`: tensors `<module>.weight`.
class DenseWeights final : public RowPacker {
 public:
  DenseWeights(const DecoderSpec& spec, DType dtype) : dtype_(dtype) {
    for (const LinearSpec* linear : spec.Linears()) {
      if (linear->transposed) transposed_.insert(linear->name);
    }
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const std::vector<int64_t> shape = transposed_.contains(module.name)
                                           ? std::vector{module.in, module.out}
                                           : std::vector{module.out, module.in};
    return {quantmill::Declare(module.name + ".weight", dtype_, shape)};
  }

  void PackRows(const QuantizedModule& module, int64_t first, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    Tensor weight = HostTensor(DType::kF32, rows.out, rows.in);
    Dequantize(rows, weight);
    if (transposed_.contains(module.name)) weight = Transposed(weight);
    const std::vector<std::byte> stored =
        StoredAs(dtype_, {weight.Row<float>(0), static_cast<size_t>(rows.out * rows.in)});
    CheckFinite({stored.data(), dtype_, weight.rows(), weight.cols(), weight.cols()},
                fmt::format("{} as {}, outputs from {} on", module.name, NameOf(dtype_), first));
    Fill(to[0], stored);
  }

 private:
  DType dtype_;
  std::set<std::string> transposed_;  // modules whose dense weights are stored [in, out]
};

ConvertReport NewReport(const ModelSource& source, const std::string& output,
                        const std::string& to) {
  ConvertReport report;
  report.input = source.path();
  report.output = output;
  report.from = source.artifact()->format();
  report.to = to;
  report.input_bytes = source.checkpoint().total_bytes();
  return report;
}

}  // namespace

ConvertReport ConvertArtifact(const ModelSource& source, const std::string& format,
                              const std::string& output, bool force, ThreadPool& pool,
                              const ConvertProgress& progress) {
  CheckConvertible(source, output);
  ConvertReport report = NewReport(source, output, format);
  {
    const Stopwatch watch(report.seconds);
    Conversion conversion(source, FindArtifactFormat(format), output, force, pool, progress);
    conversion.Run();
    report.layers = conversion.layers();
  }
  report.output_bytes = Checkpoint::Open(output).total_bytes();
  return report;
}

ConvertReport DequantizeArtifact(const ModelSource& source, DType dtype, const std::string& output,
                                 bool force, ThreadPool& pool, const ConvertProgress& progress) {
  CheckConvertible(source, output);
  ConvertReport report = NewReport(source, output, "dense " + std::string(NameOf(dtype)));
  {
    const Stopwatch watch(report.seconds);
    Output out(source, output, force);
    ModuleBands input(*source.artifact(), source.checkpoint(), pool);
    const std::vector<QuantizedModule>& modules = input.modules();
    report.layers = std::ssize(modules);
    const DenseWeights weights(source.spec(), dtype);
    CheckpointWriter writer = out.NewWriter(weights, modules);
    input.Repack(
        weights, modules, [](size_t, int64_t, QuantizedLinear&) {},
        [&](size_t i) {
          progress("dequantizing", static_cast<int64_t>(i), report.layers, modules[i].name);
        },
        writer);
    out.CopyDenseTensors(writer);
    writer.Finish();
    out.WriteFiles({});
    out.folder().Commit();
  }
  report.output_bytes = Checkpoint::Open(output).total_bytes();
  return report;
}

}  // namespace quantmill
