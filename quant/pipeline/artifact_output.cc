#include "quant/pipeline/artifact_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/sha256.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "quant/pipeline/recipe_file.h"
#include "quant/report/json.h"
#include "quant/verify/verify_artifact.h"

namespace quantmill {
namespace {

std::map<std::string, const QuantizedModule*> ByWeightName(const QuantizePlan& plan) {
  std::map<std::string, const QuantizedModule*> modules;
  for (const QuantizedModule& module : plan.modules.all())
    modules[module.name + ".weight"] = &module;
  return modules;
}

nlohmann::json LayersJson(const QuantizeReport& report) {
  nlohmann::json layers = nlohmann::json::array();
  for (const LayerResult& layer : report.layers) {
    layers.push_back({{"name", layer.name},
                      {"scheme", layer.scheme},
                      {"relative_error", layer.relative_error},
                      {"rounded_error", layer.rounded_error},
                      {"weight_error", layer.weight_error}});
  }
  return layers;
}

nlohmann::json MixturesJson(const QuantizeReport& report) {
  nlohmann::json mixtures = nlohmann::json::object();
  for (const MixtureCoverage& mixture : report.mixtures) mixtures[mixture.block] = mixture.tokens;
  return mixtures;
}

nlohmann::json EventsJson(const QuantizeReport& report) {
  nlohmann::json events = nlohmann::json::array();
  for (const Event& event : report.events) {
    events.push_back({{"kind", event.kind},
                      {"where", event.where},
                      {"what", event.what},
                      {"is_fallback", event.is_fallback}});
  }
  return events;
}

}  // namespace

void CheckOutputPath(const ModelSource& source, const std::string& output) {
  const std::filesystem::path to = std::filesystem::weakly_canonical(output);
  const std::filesystem::path from =
      std::filesystem::weakly_canonical(source.original().checkpoint().folder());
  const auto within = [](const std::filesystem::path& inner, const std::filesystem::path& outer) {
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first ==
           outer.end();
  };
  if (!within(from, to) && !within(to, from)) return;
  throw Error(ErrorCode::kUsage, "--output",
              output + " is the input, holds it, or lies in it; choose another folder");
}

ArtifactOutput::ArtifactOutput(const ModelSource& source, const QuantizePlan& plan,
                               const std::string& output, bool force)
    : source_(source),
      plan_(plan),
      format_(FindArtifactFormat(plan.recipe.format)),
      folder_(output, force),
      writer_(folder_, Declarations()) {
  CheckCopiedTensors();
}

// What nothing of the run reads, such as the embedding's other rows, would fail at its end.
void ArtifactOutput::CheckCopiedTensors() const {
  for (const std::string& name : copied_tensors_) {
    const std::optional<int64_t> bad = FindNonFinite(source_.checkpoint(), name);
    if (!bad) continue;
    throw Error(ErrorCode::kBadInput, source_.checkpoint().Location(name),
                fmt::format("element {} of {} is NaN or infinite; the checkpoint is damaged or "
                            "overflowed when it was saved",
                            *bad, ShapeString(source_.checkpoint().Info(name).shape)));
  }
}

std::vector<TensorDeclaration> ArtifactOutput::Declarations() {
  const auto modules = ByWeightName(plan_);
  // A tied head stored beside the embedding stops loaders (formats.md section 1): left out.
  const std::string tied_head =
      source_.spec().tied ? source_.spec().lm_head.name + ".weight" : std::string();
  std::vector<TensorDeclaration> declarations;
  for (const std::string& name : source_.checkpoint().names()) {
    const auto module = modules.find(name);
    if (module != modules.end()) {
      for (TensorDeclaration& d : format_.Declare(*module->second)) {
        declarations.push_back(std::move(d));
      }
    } else if (name != tied_head) {
      const TensorInfo& info = source_.checkpoint().Info(name);
      declarations.push_back({name, info.dtype, info.shape});
      copied_tensors_.push_back(name);
    }
  }
  if (plan_.recipe.kv.type != KvScheme::Type::kNone) {
    for (const BlockSpec& block : source_.spec().blocks) {
      for (TensorDeclaration& d :
           format_.DeclareKv(block.attention, plan_.recipe.kv, source_.spec().kv_heads)) {
        declarations.push_back(std::move(d));
      }
    }
  }
  return declarations;
}

void ArtifactOutput::Write(const std::string& module, const LayerSolution& solution) {
  format_.Write(module, solution.solved.linear, writer_);
}

void ArtifactOutput::Verify(
    int threads, const std::function<void(int64_t, int64_t, const std::string&)>& progress) {
  ThreadPool pool(threads);
  VerifyOptions options;
  options.progress = [&](int64_t done, int64_t total, const std::string& layer) {
    progress(done, total, layer);
    return false;
  };
  const VerifyReport verified = VerifyArtifact(path().string(), &source_, pool, options);
  if (verified.passed()) return;
  const Problem& first = verified.problems.front();
  throw Error(ErrorCode::kVerification, first.where,
              fmt::format("{} ({} in all; the output was not kept. This is a bug of "
                          "quantmill or of the disk)",
                          first.what, verified.problems.size()));
}

void ArtifactOutput::WriteFolding(const BlockSource& block) {
  if (block.folding().identity()) return;
  for (const auto& [name, values] : block.changed_tensors()) {
    writer_.Write(name, block.StoredTensor(name));
    folded_tensors_.insert(name);
  }
  folding_[block.block().prefix] = FoldingJson(block.folding());
}

void ArtifactOutput::WriteKv(const BlockSpec& block, const KvScales& scales) {
  format_.WriteKv(block.attention, scales, writer_);
}

void ArtifactOutput::CopyDenseTensors() {
  const Checkpoint& checkpoint = source_.checkpoint();
  for (const std::string& name : copied_tensors_) {
    if (folded_tensors_.contains(name)) continue;
    checkpoint.ForEachPiece(name, [&](uint64_t at, std::span<const std::byte> bytes) {
      writer_.WriteAt(name, at, bytes);
    });
    if (checkpoint.Info(name).bytes() == 0) writer_.Write(name, {});
  }
}

void ArtifactOutput::WriteConfig() {
  nlohmann::json config = source_.checkpoint().config();
  config["quantization_config"] = format_.QuantizationConfig(
      plan_.modules.all(), source_.spec().LoaderNames(plan_.dense), plan_.recipe.kv);
  folder_.WriteText("config.json", config.dump(2) + "\n");
}

void ArtifactOutput::WriteSideFiles() {
  for (const std::string& name : source_.checkpoint().other_files().copied) {
    // Of an earlier artifact: ours replace them.
    if (name == "quantmill.json" || name == "recipe.yaml") continue;
    folder_.WriteText(name, *source_.checkpoint().ReadFile(name));
  }
}

void ArtifactOutput::WriteManifest(const std::string& calibration_sha256,
                                   const QuantizeReport& report) {
  nlohmann::json input = nlohmann::json::object();
  const Checkpoint& original = source_.original().checkpoint();
  for (const std::filesystem::path& file : original.weight_files()) {
    input[file.filename().string()] = HashFile(file);
  }
  if (!original.is_image()) input["config.json"] = HashFile(original.folder() / "config.json");
  nlohmann::json files = nlohmann::json::object();
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    files[entry.path().filename().string()] = HashFile(entry.path());
  }
  nlohmann::json manifest = {
      {"quantmill", QUANTMILL_VERSION},
      {"backend", report.backend_isa},
      {"recipe", RecipeJson(plan_.recipe)},
      {"input", input},
      {"files", files},
      {"layers", LayersJson(report)},
      {"events", EventsJson(report)},
  };
  if (source_.derivation() != nullptr) manifest["rotation"] = *source_.derivation();
  if (report.budget) manifest["budget"] = ToJson(*report.budget);
  if (!folding_.empty()) manifest["folding"] = folding_;
  if (!calibration_sha256.empty()) {
    manifest["calibration"] = {{"tokens", report.calibration_tokens},
                               {"tokens_sha256", calibration_sha256}};
    // Where a block's router sends them.
    if (!report.mixtures.empty()) {
      manifest["calibration"]["tokens_by_expert"] = MixturesJson(report);
    }
  }
  folder_.WriteText("quantmill.json", manifest.dump(1) + "\n");
}

void ArtifactOutput::Finish(const std::string& calibration_sha256, const QuantizeReport& report) {
  CopyDenseTensors();
  writer_.Finish();
  WriteConfig();
  WriteSideFiles();
  folder_.WriteText("recipe.yaml",
                    RecipeYaml(plan_.recipe, "What made these weights: quantmill " QUANTMILL_VERSION
                                             " quantize MODEL --recipe recipe.yaml"));
  WriteManifest(calibration_sha256, report);
}

}  // namespace quantmill
