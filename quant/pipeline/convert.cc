#include "quant/pipeline/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "formats/checkpoint_writer.h"
#include "formats/json.h"
#include "formats/output_folder.h"
#include "formats/sha256.h"
#include "formats/zero_points.h"
#include "kernels/core/error.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/stopwatch.h"
#include "quant/verify/record.h"

namespace quantmill {
namespace {

// Modules are unpacked together while their codes take at most this much (one at least).
constexpr int64_t kBatchBytes = int64_t{32} << 20;

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

// Reads modules some at a time, with all threads; calls visit for each in order.
class QuantizedModules {
 public:
  QuantizedModules(const ModelSource& source, ThreadPool& pool)
      : reader_(*source.artifact()), checkpoint_(source.checkpoint()), pool_(pool) {
    for (const std::string& name : reader_.modules()) modules_.push_back(reader_.Describe(name));
  }

  const std::vector<QuantizedModule>& modules() const { return modules_; }

  template <typename Prepare, typename Visit>
  void ForEach(const Prepare& prepare, const Visit& visit) const {
    for (size_t begin = 0; begin < modules_.size();) {
      size_t end = begin;
      for (int64_t bytes = 0; end < modules_.size(); ++end) {
        bytes += modules_[end].out * modules_[end].in;
        if (end > begin && bytes > kBatchBytes) break;
      }
      std::vector<QuantizedLinear> batch(end - begin);
      pool_.ParallelFor(std::ssize(batch), [&](int64_t i, int) {
        QuantizedLinear& linear = batch[static_cast<size_t>(i)];
        const std::string& name = modules_[begin + static_cast<size_t>(i)].name;
        linear = reader_.Read(name);
        for (const std::string& tensor : reader_.TensorsOf(name)) checkpoint_.Release(tensor);
        prepare(begin + static_cast<size_t>(i), linear);
      });
      for (size_t i = begin; i < end; ++i) visit(i, batch[i - begin]);
      begin = end;
    }
  }

 private:
  const ArtifactReader& reader_;
  const Checkpoint& checkpoint_;
  ThreadPool& pool_;
  std::vector<QuantizedModule> modules_;
};

// Whether all that values follow from is equal. Equal values may also follow from other numbers:
// a mirrored grid, zero points of a symmetric layer.
bool IsSameLinear(const QuantizedLinear& a, const QuantizedLinear& b) {
  return a.out == b.out && a.in == b.in && a.groups() == b.groups() &&
         a.scheme.code_type == b.scheme.code_type && a.scheme.bits == b.scheme.bits &&
         a.scheme.symmetric == b.scheme.symmetric &&
         a.scheme.has_global_scale() == b.scheme.has_global_scale() &&
         a.global_scale == b.global_scale && a.codes == b.codes && a.scales == b.scales &&
         a.zero_points == b.zero_points;
}

// What both conversions write beside the weights.
class Output {
 public:
  Output(const ModelSource& source, const std::string& path, bool force)
      : source_(source), folder_(path, force) {}

  OutputFolder& folder() { return folder_; }

  // Tensors that no module of the source owns.
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

  void CopyTensor(const std::string& name, CheckpointWriter& writer) const {
    const Checkpoint& checkpoint = source_.checkpoint();
    checkpoint.ForEachPiece(name, [&](uint64_t at, std::span<const std::byte> bytes) {
      writer.WriteAt(name, at, bytes);
    });
    if (checkpoint.Info(name).bytes() == 0) writer.Write(name, {});
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
        progress_(progress),
        input_(source, pool),
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
  void CheckSupported() const;
  void Repack();
  void Rewrite(size_t index, QuantizedLinear& linear) const;
  std::vector<std::string> DenseLinears() const;
  void WriteRecord();
  void Prove();

  const ModelSource& source_;
  const ArtifactWriterFormat& format_;
  const ConvertProgress& progress_;
  QuantizedModules input_;
  Output output_;
  std::vector<QuantizedModule> targets_;  // as the output holds them
};

// The source's schemes, with the scale type and the zero points that the format has.
void Conversion::ChooseSchemes() {
  targets_ = input_.modules();
  // Files that need zero points may hold symmetric groups all the same.
  bool in_disguise = source_.artifact()->format() == "awq" && !format_.needs_zero_points();
  if (in_disguise) {
    std::vector<char> symmetric(targets_.size());
    input_.ForEach(
        [&](size_t i, const QuantizedLinear& linear) {
          symmetric[i] = IsSymmetricInDisguise(linear) ? 1 : 0;
        },
        [](size_t, const QuantizedLinear&) {});
    in_disguise = std::ranges::all_of(symmetric, [](char s) { return s == 1; });
  }
  for (QuantizedModule& module : targets_) {
    if (module.scheme.code_type == CodeType::kFp4) continue;
    if (format_.scale_type()) module.scheme.scale_dtype = *format_.scale_type();
    if (module.scheme.code_type != CodeType::kInt) continue;
    if (in_disguise) module.scheme.symmetric = true;
    if (format_.needs_zero_points()) module.scheme.symmetric = false;
  }
}

void Conversion::CheckSupported() const {
  for (const QuantizedModule& module : targets_) {
    if (module.scheme.group_size == 1) {
      throw Error(ErrorCode::kUsage, module.name,
                  "act-order scattered the inputs of its groups (g_idx), so that each has a scale "
                  "of its own, which would make the file several times as large; "
                  "--dequantize f16 writes a dense checkpoint");
    }
    format_.CheckSupported(module);
  }
  format_.CheckTogether(targets_);
  format_.CheckSupportedKv(source_.kv_scheme());
}

// To the scheme of the target, with the same values.
void Conversion::Rewrite(size_t index, QuantizedLinear& linear) const {
  const QuantScheme& wanted = targets_[index].scheme;
  if (linear.scheme.symmetric && !wanted.symmetric) ToAsymmetric(linear);
  if (!linear.scheme.symmetric && wanted.symmetric) ToSymmetric(linear);
  const int64_t groups = linear.groups();
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = linear.scales[static_cast<size_t>(o * groups + g)];
      if (RoundTo(wanted.scale_dtype, scale) == scale) continue;
      throw Error(ErrorCode::kUsage, targets_[index].name,
                  fmt::format("scale {} of output {} is {:.9g}, which {} scales ({}) do not hold "
                              "exactly: this file cannot be repacked without loss",
                              g, o, scale, NameOf(wanted.scale_dtype), format_.name()));
    }
  }
  linear.scheme = wanted;
}

void Conversion::Repack() {
  const std::vector<std::string> dense = output_.DenseTensors();
  std::vector<TensorDeclaration> declarations;
  for (const QuantizedModule& module : targets_) {
    for (TensorDeclaration& d : format_.Declare(module)) declarations.push_back(std::move(d));
  }
  for (const std::string& name : dense) {
    const TensorInfo& info = source_.checkpoint().Info(name);
    declarations.push_back({name, info.dtype, info.shape});
  }
  CheckpointWriter writer(output_.folder(), std::move(declarations));
  input_.ForEach([&](size_t i, QuantizedLinear& linear) { Rewrite(i, linear); },
                 [&](size_t i, const QuantizedLinear& linear) {
                   progress_("converting", static_cast<int64_t>(i), layers(), targets_[i].name);
                   format_.Write(targets_[i].name, linear, writer);
                 });
  for (const std::string& name : dense) output_.CopyTensor(name, writer);
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
  input_.ForEach(
      [&](size_t i, const QuantizedLinear& linear) {
        const std::string& name = targets_[i].name;
        const QuantizedLinear repacked = reader->Read(name);
        for (const std::string& tensor : reader->TensorsOf(name)) written.Release(tensor);
        if (IsSameLinear(linear, repacked)) return;
        std::vector<float> got(static_cast<size_t>(linear.in));
        std::vector<float> want(static_cast<size_t>(linear.in));
        for (int64_t row = 0; row < linear.out; ++row) {
          DequantizeRow(linear, row, want.data());
          DequantizeRow(repacked, row, got.data());
          if (got == want) continue;
          throw Error(ErrorCode::kVerification, name,
                      fmt::format("output {} decodes to other values than the source; nothing was "
                                  "kept. This is a bug of quantmill or of the disk",
                                  row));
        }
      },
      [&](size_t i, const QuantizedLinear&) {
        progress_("comparing", static_cast<int64_t>(i), layers(), targets_[i].name);
      });
}

// Those whose dense weights are stored [in, out].
std::set<std::string> TransposedModules(const DecoderSpec& spec) {
  std::set<std::string> names;
  for (const LinearSpec* linear : spec.Linears()) {
    if (linear->transposed) names.insert(linear->name);
  }
  return names;
}

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
    const QuantizedModules input(source, pool);
    const std::vector<std::string> dense = out.DenseTensors();
    std::vector<TensorDeclaration> declarations;
    const std::set<std::string> transposed = TransposedModules(source.spec());
    for (const QuantizedModule& module : input.modules()) {
      const std::vector<int64_t> shape = transposed.contains(module.name)
                                             ? std::vector{module.in, module.out}
                                             : std::vector{module.out, module.in};
      declarations.push_back(Declare(module.name + ".weight", dtype, shape));
    }
    for (const std::string& name : dense) {
      const TensorInfo& info = source.checkpoint().Info(name);
      declarations.push_back({name, info.dtype, info.shape});
    }
    CheckpointWriter writer(out.folder(), std::move(declarations));
    const auto layers = std::ssize(input.modules());
    input.ForEach([](size_t, const QuantizedLinear&) {},
                  [&](size_t i, const QuantizedLinear& linear) {
                    const std::string& name = input.modules()[i].name;
                    progress("dequantizing", static_cast<int64_t>(i), layers, name);
                    Tensor weight = HostTensor(DType::kF32, linear.out, linear.in);
                    Dequantize(linear, weight);
                    if (transposed.contains(name)) weight = Transposed(weight);
                    const std::vector<std::byte> stored = StoredAs(
                        dtype, {weight.Row<float>(0), static_cast<size_t>(linear.out * linear.in)});
                    CheckFinite({stored.data(), dtype, weight.rows(), weight.cols(), weight.cols()},
                                name + " as " + std::string(NameOf(dtype)));
                    writer.Write(name + ".weight", stored);
                  });
    for (const std::string& name : dense) out.CopyTensor(name, writer);
    writer.Finish();
    out.WriteFiles({});
    out.folder().Commit();
    report.layers = layers;
  }
  report.output_bytes = Checkpoint::Open(output).total_bytes();
  return report;
}

}  // namespace quantmill
