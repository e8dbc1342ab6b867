#include "quant/verify/verify_artifact.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/kv_text.h"
#include "quant/model/families.h"
#include "quant/model/rotated_model.h"
#include "quant/verify/file_comparison.h"
#include "quant/verify/folded_reference.h"
#include "quant/verify/layer_errors.h"
#include "quant/verify/problem_list.h"
#include "quant/verify/record.h"

namespace quantmill {
namespace {

// WeightError is deterministic; this leaves room for another compiler's order of additions alone.
// One code of a billion that changed by one step moves the error by more.
constexpr double kRecordedTolerance = 1e-9;

bool SameError(double a, double b) {
  return std::abs(a - b) <= kRecordedTolerance * std::max(std::abs(a), std::abs(b));
}

std::string ErrorText(double error) { return fmt::format("{:.9g}", error); }

class Verification {
 public:
  Verification(const std::string& artifact, const ModelSource* reference, ThreadPool& pool,
               const VerifyOptions& options)
      : files_(OpenModelFiles(artifact)),
        checkpoint_(*files_.checkpoint),
        reader_(files_.artifact.get()),
        spec_(DescribeDecoder(checkpoint_)),
        reference_(reference),
        pool_(pool),
        options_(options) {
    if (reader_ == nullptr) {
      throw Error(ErrorCode::kBadInput, PathOf("config.json"),
                  "has no quantization_config: this is no quantized artifact");
    }
    if (reference != nullptr && reference->artifact() != nullptr) {
      throw Error(ErrorCode::kUsage, reference->path(),
                  "is quantized itself; the reference is the dense checkpoint it was made from");
    }
    report_.artifact = artifact;
    report_.reference = reference == nullptr ? "" : reference->path();
    report_.format = reader_->format();
    report_.bytes_checked = checkpoint_.total_bytes();
    report_.tensors = static_cast<int64_t>(checkpoint_.names().size());
  }

  VerifyReport Run() {
    OpenRecord();
    RotateReference();
    FoldReference();
    CheckWholeFiles();
    CompareWithReference();
    CheckCache();
    CheckTarget();
    FindLayers();
    CheckRecordedLayers();
    CheckLayers();
    CheckConstants();
    CheckThatItLoads();
    report_.problems = problems_.Take();
    return std::move(report_);
  }

 private:
  void OpenRecord();
  void RotateReference();
  void FoldReference();
  void CheckWholeFiles();
  void CompareWithReference();
  void CompareDecoded(const std::set<std::string>& quantized);
  void CheckTarget();
  void CheckCache();
  void FindLayers();
  void FindLayer(const LinearSpec& linear);
  std::optional<std::string> ReferenceWeight(const LinearSpec& linear);
  void CheckRecordedLayers();
  void CheckLayers();
  void CheckLayer(const StoredLayer& layer, const LayerError& error);
  void CheckError(VerifiedLayer& verified);
  void CheckConstants();
  void CheckThatItLoads();
  void Progress(int64_t done, int64_t total, const std::string& what) const;

  std::string PathOf(const std::string& name) const { return checkpoint_.PathOf(name); }
  std::string ModulePlace(const std::string& module) const {
    return checkpoint_.folder().string() + ": layer '" + module + "'";
  }

  ModelFiles files_;
  const Checkpoint& checkpoint_;
  const ArtifactReader* reader_;
  DecoderSpec spec_;
  const ModelSource* reference_;
  ThreadPool& pool_;
  const VerifyOptions& options_;
  std::optional<ArtifactRecord> record_;
  std::optional<RotatedModel> rotated_;
  std::optional<FoldedReference> folded_;
  std::set<std::string> told_;  // modules of which a defect is in problems_ already
  std::multimap<std::string, TensorProblem> constant_;  // by module
  std::vector<StoredLayer> layers_;
  ProblemList problems_;
  VerifyReport report_;
};

void Verification::OpenRecord() {
  try {
    record_ = ReadRecord(checkpoint_.folder(), spec_);
    if (record_) report_.fallbacks = record_->fallbacks;
  } catch (const Error& error) {
    problems_.Add(error);
  }
}

// What the artifact was made from, made again: from here on that is the reference. A reference that
// is a stand-in itself comes from quantize, which rotated it.
void Verification::RotateReference() {
  if (!record_ || record_->rotation.is_null() || reference_ == nullptr) return;
  if (reference_->derivation() == nullptr) {
    std::error_code error;
    const std::filesystem::path temporary = std::filesystem::temp_directory_path(error);
    if (error) {
      throw Error(ErrorCode::kEnvironment, "$TMPDIR",
                  "is no folder; the rotated reference needs one with room for its size");
    }
    rotated_.emplace(*reference_, temporary / checkpoint_.folder().filename(), pool_,
                     [&](int64_t done, int64_t total, const std::string& tensor) {
                       Progress(done, total, tensor);
                     });
    reference_ = &rotated_->model();
  }
  if (*reference_->derivation() == record_->rotation) return;
  problems_.Add(PathOf(kRecordName), "was rotated by " + record_->rotation.dump() +
                                         "; this version of quantmill rotates by " +
                                         reference_->derivation()->dump() +
                                         ", so nothing can be compared with the reference");
}

void Verification::FoldReference() {
  try {
    if (record_ && reference_ != nullptr) folded_.emplace(*reference_, record_->folding);
  } catch (const Error& error) {
    problems_.Add(error);
  }
}

void Verification::Progress(int64_t done, int64_t total, const std::string& what) const {
  if (options_.progress && options_.progress(done, total, what)) {
    throw Error(ErrorCode::kInterrupted, report_.artifact, "verification was interrupted");
  }
}

// Both read files from one end to the other; they run beside each other.
void Verification::CheckWholeFiles() {
  std::vector<TensorProblem> tensors;
  std::vector<Problem> files;
  const Checkpoint* reference = reference_ == nullptr ? nullptr : &reference_->checkpoint();
  pool_.ParallelFor(2, [&](int64_t task, int) {
    if (task == 0) {
      tensors = reader_->CheckTensors();
    } else if (record_) {
      files = CompareSideFiles(checkpoint_, *record_, reference);
    }
  });
  for (const TensorProblem& problem : tensors) {
    // A module that cannot be decoded is told where it is read again, with the exact place.
    if (problem.kind == TensorProblem::Kind::kInvalid) continue;
    const std::string module = problem.tensor.substr(0, problem.tensor.rfind('.'));
    if (problem.kind == TensorProblem::Kind::kConstant) {
      constant_.emplace(module, problem);
      continue;
    }
    problems_.Add(TensorPlace(checkpoint_, problem.tensor),
                  std::string(NameOf(problem.kind)) + ": " + problem.what);
    told_.insert(module);
  }
  problems_.Append(files);
}

// Against the reference: every tensor by name, and what is dense bit for bit.
void Verification::CompareWithReference() {
  const std::set<std::string> quantized = QuantizedTensors(*reader_, spec_);
  if (reference_ == nullptr) {
    if (checkpoint_.is_image()) report_.layers = LayersOfBlocks(checkpoint_, quantized);
    return;
  }
  const Checkpoint& reference = reference_->checkpoint();
  if (checkpoint_.is_image()) {
    CompareDecoded(quantized);
  } else {
    problems_.Append(CompareDenseTensors(checkpoint_, quantized, reference, folded_, pool_));
  }
  if (record_) problems_.Append(CompareConfig(checkpoint_, reference));
  problems_.Append(CompareTensorNames(checkpoint_, *reader_, quantized, spec_, reference));
}

// A file of blocks has no dense tensors that could be the reference's bit for bit. Vectors, which
// it stores in full, are its values; matrices that are decoded have an error like other layers.
void Verification::CompareDecoded(const std::set<std::string>& quantized) {
  const Checkpoint& reference = reference_->checkpoint();
  struct Compared {
    std::string name;
    DecodedComparison result;
    std::optional<Error> error;
  };
  std::vector<Compared> tensors;
  for (const std::string& name : checkpoint_.names()) {
    if (!quantized.contains(name) && reference.Has(name)) tensors.push_back({name, {}, {}});
  }
  pool_.ParallelFor(std::ssize(tensors), [&](int64_t task, int) {
    Compared& tensor = tensors[static_cast<size_t>(task)];
    try {
      tensor.result = CompareDecodedTensor(checkpoint_, reference, tensor.name);
    } catch (const Error& error) {
      tensor.error = error;
    }
  });
  for (const auto& [name, result, error] : tensors) {
    if (error) problems_.Add(*error);
    if (!result.problem.empty()) problems_.Add(checkpoint_.Location(name), result.problem);
    if (!result.weight_error) continue;
    const std::string type = checkpoint_.Stored(name).type;
    VerifiedLayer verified{name.substr(0, name.rfind('.')), type, result.weight_error,
                           std::nullopt};
    CheckError(verified);
    const bool dense = DTypeFromName(type).has_value();
    if (!dense) report_.layers.push_back(std::move(verified));
  }
}

// Every block has the scales of its cache, which is of the kind that was recorded.
void Verification::CheckCache() {
  const std::string kv = KvText(reader_->kv_scheme());
  if (record_ && record_->kv_scheme != kv) {
    problems_.Add(PathOf("config.json"), "asks for a key-value cache of kind '" + kv +
                                             "', but quantize recorded '" + record_->kv_scheme +
                                             "'");
  }
  if (reader_->kv_scheme().type == KvScheme::Type::kNone) return;
  for (const BlockSpec& block : spec_.blocks) {
    try {
      reader_->ReadKv(block.attention, spec_.kv_heads);
    } catch (const Error& error) {
      problems_.Add(error);
    }
  }
}

// Each rule of the server that it is for.
void Verification::CheckTarget() {
  if (options_.target.stack == ServingTarget::Stack::kNone) return;
  std::vector<QuantizedModule> modules;
  for (const std::string& module : reader_->modules()) {
    try {
      if (reader_->SchemeOf(module)) modules.push_back(reader_->Describe(module));
    } catch (const Error& error) {
      problems_.Add(error);
    }
  }
  const TargetVerdict verdict =
      CheckServingTarget(options_.target, spec_, reader_->format(), modules, reader_->kv_scheme());
  for (const TargetFinding& finding : verdict.refusals) {
    problems_.Add(finding.where.empty() ? PathOf("config.json") : ModulePlace(finding.where),
                  finding.what);
  }
}

void Verification::FindLayers() {
  std::set<std::string> known;
  for (const LinearSpec* linear : spec_.Linears()) {
    known.insert(linear->name);
    FindLayer(*linear);
  }
  if (!spec_.tied) {
    known.insert(spec_.lm_head.name);
    FindLayer(spec_.lm_head);
  }
  for (const std::string& module : reader_->modules()) {
    if (!known.contains(module)) {
      problems_.Add(ModulePlace(module),
                    "is stored quantized, but config.json describes no "
                    "such linear layer");
    }
  }
}

void Verification::FindLayer(const LinearSpec& linear) {
  try {
    const std::optional<QuantScheme> scheme = reader_->SchemeOf(linear.name);
    if (!scheme) return;
    const QuantizedModule module = reader_->Describe(linear.name);
    if (module.out != linear.out || module.in != linear.in) {
      problems_.Add(ModulePlace(linear.name),
                    fmt::format("is stored as [{}, {}], but config.json asks for [{}, {}]",
                                module.out, module.in, linear.out, linear.in));
      return;
    }
    layers_.push_back({linear.name, *scheme, module, ReferenceWeight(linear), linear.transposed});
  } catch (const Error& error) {
    if (told_.insert(linear.name).second) problems_.Add(error);
  }
}

std::optional<std::string> Verification::ReferenceWeight(const LinearSpec& linear) {
  if (reference_ == nullptr) return std::nullopt;
  const std::string name = linear.name + ".weight";
  const Checkpoint& reference = reference_->checkpoint();
  if (!reference.Has(name)) {
    problems_.Add(ModulePlace(linear.name), "the reference has no '" + name + "'");
    return std::nullopt;
  }
  const std::vector<int64_t>& shape = reference.Info(name).shape;
  if (shape != linear.stored_shape()) {
    problems_.Add(ModulePlace(linear.name),
                  fmt::format("is {}, but {} in the reference", ShapeString(linear.stored_shape()),
                              ShapeString(shape)));
    return std::nullopt;
  }
  return name;
}

// The layers in the file are those that quantize recorded, each in the scheme it recorded.
void Verification::CheckRecordedLayers() {
  if (!record_) return;
  std::map<std::string, std::string> schemes;
  for (const StoredLayer& layer : layers_) schemes[layer.name] = Describe(layer.scheme);
  for (const auto& [name, recorded] : record_->layers) {
    const auto found = schemes.find(name);
    if (found == schemes.end() && told_.contains(name)) continue;
    const std::string scheme = found == schemes.end() ? "dense" : found->second;
    if (scheme != recorded.scheme) {
      problems_.Add(ModulePlace(name),
                    "is stored " + scheme + ", but quantize recorded " + recorded.scheme);
    }
  }
  for (const auto& [name, scheme] : schemes) {
    if (!record_->layers.contains(name)) {
      problems_.Add(ModulePlace(name),
                    "is stored " + scheme + ", but quantize recorded no such layer");
    }
  }
}

void Verification::CheckLayers() {
  const LayerFiles files{checkpoint_, *reader_, reference_, folded_ ? &*folded_ : nullptr};
  for (size_t begin = 0; begin < layers_.size();) {
    const std::span<const StoredLayer> layers = FirstBatch(std::span(layers_).subspan(begin));
    const std::vector<LayerError> errors = MeasureErrors(files, layers, pool_);
    for (size_t i = 0; i < layers.size(); ++i) CheckLayer(layers[i], errors[i]);
    begin += layers.size();
    Progress(static_cast<int64_t>(begin), std::ssize(layers_), layers.back().name);
  }
}

void Verification::CheckLayer(const StoredLayer& layer, const LayerError& error) {
  if (error.unreadable && !told_.contains(layer.name)) problems_.Add(*error.unreadable);
  VerifiedLayer verified{layer.name, Describe(layer.scheme), error.weight_error, std::nullopt};
  if (record_ && record_->layers.contains(layer.name)) {
    verified.recorded_error = record_->layers.at(layer.name).weight_error;
  }
  CheckError(verified);
  report_.layers.push_back(std::move(verified));
}

void Verification::CheckError(VerifiedLayer& verified) {
  if (!verified.weight_error) return;
  const double error = *verified.weight_error;
  std::string what;
  if (!std::isfinite(error)) {
    what = "its weight error is " + ErrorText(error) + ": the file or the reference is damaged";
  } else if (error > 1) {
    what = "its weight error is " + ErrorText(error) +
           " of the reference's norm: storing zeros would be closer, so these are not the codes "
           "of this layer";
  }
  if (verified.recorded_error && !SameError(error, *verified.recorded_error)) {
    what += (what.empty() ? "" : "; ") + std::string("its weight error is ") + ErrorText(error) +
            ", but quantize recorded " + ErrorText(*verified.recorded_error) +
            ": the file or the reference changed since";
  }
  if (!what.empty()) problems_.Add(ModulePlace(verified.name), what);
}

// Equal codes, scales or elements are what is left where a disk or a tool lost the data, and what a
// layer of zeros gives: one whose error against the reference is small is right, and without a
// reference one that quantize stored without any error. Dense tensors were compared bit for bit.
void Verification::CheckConstants() {
  std::set<std::string> right;
  for (const VerifiedLayer& layer : report_.layers) {
    const bool exact = layer.recorded_error && *layer.recorded_error == 0;
    if (layer.weight_error ? *layer.weight_error <= 1 : exact) right.insert(layer.name);
  }
  const std::vector<std::string>& quantized = reader_->modules();
  for (const auto& [module, problem] : constant_) {
    const bool compared = reference_ != nullptr && reference_->checkpoint().Has(problem.tensor) &&
                          !std::binary_search(quantized.begin(), quantized.end(), module);
    if (compared || right.contains(module)) continue;
    problems_.Add(TensorPlace(checkpoint_, problem.tensor),
                  std::string(NameOf(problem.kind)) + ": " + problem.what);
  }
}

// Last, because it tells the first problem alone: the runtime opens the artifact as any model.
void Verification::CheckThatItLoads() {
  if (!problems_.empty()) return;
  try {
    ModelSource::Open(report_.artifact);
  } catch (const Error& error) {
    problems_.Add(error);
  }
}

}  // namespace

VerifyReport VerifyArtifact(const std::string& artifact, const ModelSource* reference,
                            ThreadPool& pool, const VerifyOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  VerifyReport report = Verification(artifact, reference, pool, options).Run();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace quantmill
