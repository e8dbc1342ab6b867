#include "quant/verify/file_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "formats/sha256.h"

namespace quantmill {
namespace {

std::string PathOf(const Checkpoint& checkpoint, const std::string& name) {
  return (checkpoint.folder() / name).string();
}

// A piece at a time: the largest tensor is never resident as a whole.
std::string CompareBytes(const std::string& name, const Checkpoint& artifact,
                         const Checkpoint& reference) {
  const std::span<const std::byte> bytes = artifact.Bytes(name);
  std::string problem;
  reference.ForEachPiece(name, [&](uint64_t at, std::span<const std::byte> wanted) {
    const auto part = bytes.subspan(at, wanted.size());
    if (problem.empty() && std::memcmp(part.data(), wanted.data(), part.size()) != 0) {
      const auto differs = std::mismatch(part.begin(), part.end(), wanted.begin()).first;
      problem = fmt::format("differs from the reference's bytes, first at byte {} of the tensor",
                            at + static_cast<size_t>(differs - part.begin()));
    }
    if (!artifact.is_image()) artifact.Release(name);
  });
  artifact.Release(name);
  return problem;
}

// What is wrong with it, or nothing.
std::string CompareDenseTensor(const std::string& name, const Checkpoint& artifact,
                               const Checkpoint& reference,
                               const std::optional<FoldedReference>& folded) {
  const TensorInfo& info = artifact.Info(name);
  const TensorInfo& original = reference.Info(name);
  if (info.dtype != original.dtype || info.shape != original.shape) {
    return fmt::format("is {} {}, but {} {} in the reference", info.dtype, ShapeString(info.shape),
                       original.dtype, ShapeString(original.shape));
  }
  if (const auto wanted = folded ? folded->Bytes(name) : std::nullopt) {
    const bool same = std::ranges::equal(artifact.Bytes(name), *wanted);
    return same ? "" : "differs from the reference's values divided by the recorded input scales";
  }
  return CompareBytes(name, artifact, reference);
}

}  // namespace

std::string TensorPlace(const Checkpoint& checkpoint, const std::string& tensor) {
  return checkpoint.Has(tensor) ? checkpoint.Location(tensor)
                                : checkpoint.folder().string() + ": tensor '" + tensor + "'";
}

std::set<std::string> QuantizedTensors(const ArtifactReader& reader, const DecoderSpec& spec) {
  std::set<std::string> tensors;
  const auto add = [&](const std::vector<std::string>& names) {
    tensors.insert(names.begin(), names.end());
  };
  for (const std::string& module : reader.modules()) add(reader.TensorsOf(module));
  if (reader.kv_scheme().type != KvScheme::Type::kNone) {
    for (const BlockSpec& block : spec.blocks) add(reader.KvTensorsOf(block.attention));
  }
  return tensors;
}

std::vector<Problem> CompareTensorNames(const Checkpoint& artifact, const ArtifactReader& reader,
                                        const std::set<std::string>& quantized,
                                        const DecoderSpec& spec, const Checkpoint& reference) {
  std::set<std::string> replaced;
  for (const std::string& module : reader.modules()) replaced.insert(module + ".weight");
  // A tied head stored beside the embedding is a copy that nobody reads; quantize leaves it out.
  if (spec.tied) replaced.insert(spec.lm_head.name + ".weight");
  std::vector<Problem> problems;
  for (const std::string& name : reference.names()) {
    if (!artifact.Has(name) && !replaced.contains(name)) {
      problems.push_back({TensorPlace(artifact, name), "missing: the reference has this tensor"});
    }
  }
  for (const std::string& name : artifact.names()) {
    if (!reference.Has(name) && !quantized.contains(name)) {
      problems.push_back({TensorPlace(artifact, name), "extra: the reference has no such tensor"});
    }
  }
  return problems;
}

// One task a tensor: Release must not take a tensor from a check that still reads it.
std::vector<Problem> CompareDenseTensors(const Checkpoint& artifact,
                                         const std::set<std::string>& quantized,
                                         const Checkpoint& reference,
                                         const std::optional<FoldedReference>& folded,
                                         ThreadPool& pool) {
  std::vector<std::string> names;
  for (const std::string& name : artifact.names()) {
    if (reference.Has(name) && !quantized.contains(name)) names.push_back(name);
  }
  std::vector<std::string> found(names.size());
  pool.ParallelFor(std::ssize(names), [&](int64_t task, int) {
    const auto i = static_cast<size_t>(task);
    found[i] = CompareDenseTensor(names[i], artifact, reference, folded);
  });
  std::vector<Problem> problems;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!found[i].empty()) problems.push_back({TensorPlace(artifact, names[i]), found[i]});
  }
  return problems;
}

DecodedComparison CompareDecodedTensor(const Checkpoint& file, const Checkpoint& reference,
                                       const std::string& name) {
  DecodedComparison result;
  const std::vector<int64_t>& shape = file.Info(name).shape;
  if (shape != reference.Info(name).shape) {
    result.problem = fmt::format("is {}, but {} in the reference", ShapeString(shape),
                                 ShapeString(reference.Info(name).shape));
    return result;
  }
  const ConstMatrix wanted = reference.View(name);
  CheckFinite(wanted, reference.Location(name));
  const ConstMatrix found = file.View(name);
  std::vector<float> want(static_cast<size_t>(wanted.cols));
  std::vector<float> got(want.size());
  double error = 0;
  double square = 0;
  for (int64_t row = 0; row < wanted.rows; ++row) {
    WidenRow(wanted, row, want.data());
    WidenRow(found, row, got.data());
    for (size_t i = 0; i < want.size(); ++i) {
      const double difference = static_cast<double>(got[i]) - static_cast<double>(want[i]);
      error += difference * difference;
      square += static_cast<double>(want[i]) * static_cast<double>(want[i]);
    }
  }
  file.Release(name);
  reference.Release(name);
  if (shape.size() < 2) {
    if (error != 0) result.problem = "differs from the reference's values";
  } else if (square > 0) {
    result.weight_error = error / square;
  }
  return result;
}

std::vector<VerifiedLayer> LayersOfBlocks(const Checkpoint& file,
                                          const std::set<std::string>& quantized) {
  std::vector<VerifiedLayer> layers;
  for (const std::string& name : file.names()) {
    const std::string type = file.Stored(name).type;
    if (quantized.contains(name) || DTypeFromName(type)) continue;
    layers.push_back({name.substr(0, name.rfind('.')), type, std::nullopt, std::nullopt});
  }
  return layers;
}

std::vector<Problem> CompareSideFiles(const Checkpoint& artifact, const ArtifactRecord& record,
                                      const Checkpoint* reference) {
  std::vector<Problem> problems;
  std::map<std::string, std::string> hashes;
  for (const auto& [name, recorded] : record.files) {
    const std::filesystem::path path = artifact.folder() / name;
    if (!std::filesystem::is_regular_file(path)) {
      problems.push_back({path.string(), "missing: quantize wrote this file"});
      continue;
    }
    hashes[name] = HashFile(path);
    if (hashes[name] != recorded) {
      problems.push_back({path.string(), "was changed after quantize: its SHA-256 is " +
                                             hashes[name] + ", recorded is " + recorded});
    }
  }
  if (reference == nullptr) return problems;
  for (const std::string& name : reference->other_files().copied) {
    if (name == kRecordName) continue;
    const auto hash = hashes.find(name);
    if (hash == hashes.end()) {
      problems.push_back(
          {PathOf(artifact, name), "missing or not recorded: the reference has this file"});
    } else if (hash->second != Sha256Hex(*reference->ReadFile(name))) {
      problems.push_back({PathOf(artifact, name), "differs from the reference's file"});
    }
  }
  return problems;
}

std::vector<Problem> CompareConfig(const Checkpoint& artifact, const Checkpoint& reference) {
  nlohmann::json config = artifact.config();
  config.erase("quantization_config");
  const nlohmann::json& wanted = reference.config();
  if (config == wanted) return {};
  const nlohmann::json changes = nlohmann::json::diff(wanted, config);
  return {{PathOf(artifact, "config.json"),
           "differs from the reference's in more than quantization_config, first at " +
               changes.at(0).at("path").get<std::string>()}};
}

}  // namespace quantmill
