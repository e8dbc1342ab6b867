#include "tiny_artifact.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "formats/artifact.h"
#include "formats/checkpoint.h"
#include "formats/checkpoint_writer.h"
#include "formats/file.h"
#include "formats/json.h"
#include "formats/kv_text.h"
#include "formats/output_folder.h"
#include "formats/sha256.h"
#include "quant/verify/verify_artifact.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHidden = 16;
constexpr int64_t kFfn = 24;
constexpr int64_t kHeadDim = 8;
constexpr int64_t kVocab = 32;
constexpr int kBlocks = 2;

QuantScheme TinyScheme() {
  return {.bits = 4, .symmetric = true, .group_size = 8, .scale_dtype = DType::kF16};
}

std::string AttentionOf(int block) {
  return "model.layers." + std::to_string(block) + ".self_attn";
}

nlohmann::json TinyConfig() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", kHidden},
          {"intermediate_size", kFfn},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", kHeadDim},
          {"num_hidden_layers", kBlocks},
          {"vocab_size", kVocab},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", true},
          {"torch_dtype", "float16"}};
}

StoredTensor NormalF16(Random& random, std::vector<int64_t> shape) {
  StoredTensor tensor{"F16", std::move(shape), {}};
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<std::array<std::byte, 2>>(
        ToF16(static_cast<float>(0.1 * random.Normal())).bits);
    tensor.bytes.insert(tensor.bytes.end(), bits.begin(), bits.end());
  }
  return tensor;
}

TensorMap TinyTensors() {
  Random random(7);
  TensorMap tensors;
  tensors["model.embed_tokens.weight"] = NormalF16(random, {kVocab, kHidden});
  tensors["model.norm.weight"] = NormalF16(random, {kHidden});
  for (int block = 0; block < kBlocks; ++block) {
    const std::string prefix = "model.layers." + std::to_string(block) + ".";
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      tensors[prefix + name + ".weight"] = NormalF16(random, std::move(shape));
    };
    add("input_layernorm", {kHidden});
    add("post_attention_layernorm", {kHidden});
    add("self_attn.q_proj", {2 * kHeadDim, kHidden});
    add("self_attn.k_proj", {kHeadDim, kHidden});
    add("self_attn.v_proj", {kHeadDim, kHidden});
    add("self_attn.o_proj", {kHidden, 2 * kHeadDim});
    add("mlp.gate_proj", {kFfn, kHidden});
    add("mlp.up_proj", {kFfn, kHidden});
    add("mlp.down_proj", {kHidden, kFfn});
  }
  return tensors;
}

void WriteWeights(const TensorMap& tensors, OutputFolder& folder) {
  std::vector<TensorDeclaration> declarations;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back({name, tensor.dtype, tensor.shape});
  }
  CheckpointWriter writer(folder, declarations);
  for (const auto& [name, tensor] : tensors) writer.Write(name, tensor.bytes);
  writer.Finish();
}

TensorMap ReadWeights(const fs::path& folder) {
  const Checkpoint checkpoint = Checkpoint::Open(folder.string());
  TensorMap tensors;
  for (const std::string& name : checkpoint.names()) {
    const TensorInfo& info = checkpoint.Info(name);
    const std::span<const std::byte> bytes = checkpoint.Bytes(name);
    tensors[name] = {info.dtype, info.shape, {bytes.begin(), bytes.end()}};
  }
  return tensors;
}

}  // namespace

QuantScheme MixedScheme(const std::string& module) {
  using Input = InputScheme;
  const auto is = [&](const char* name) { return module.find(name) != std::string::npos; };
  QuantScheme fp8 = {.bits = 8, .scale_dtype = DType::kF32, .code_type = CodeType::kFp8};
  if (is("o_proj")) {
    fp8.group_size = QuantScheme::kPerChannel;
    fp8.row_block = QuantScheme::kAllRows;
    fp8.input = {Input::Type::kFp8, false, true};
    return fp8;
  }
  if (is("down_proj")) {
    fp8.group_size = 8;
    fp8.row_block = 8;
    fp8.input = {Input::Type::kFp8, true, true, 8};
    return fp8;
  }
  if (is("gate_proj") || is("up_proj")) {
    return {.group_size = 16, .scale_dtype = DType::kF8E4M3, .code_type = CodeType::kFp4};
  }
  return {
      .bits = 8, .group_size = QuantScheme::kPerChannel, .input = {Input::Type::kInt8, true, true}};
}

QuantizedLinear RoundToNearest(const StoredTensor& weight, const QuantScheme& scheme) {
  QuantizedLinear linear{scheme, weight.shape[0], weight.shape[1], {}, {}, {}};
  std::vector<F16> values(static_cast<size_t>(linear.out * linear.in));
  std::memcpy(values.data(), weight.bytes.data(), weight.bytes.size());
  const auto value = [&](int64_t row, int64_t i) {
    return ToFloat(values[static_cast<size_t>(row * linear.in + i)]);
  };
  const bool integers = scheme.code_type == CodeType::kInt;
  const float largest_code = integers ? static_cast<float>(scheme.max_code()) : scheme.half_range();
  if (scheme.has_global_scale()) linear.global_scale = 512;
  if (scheme.input.has_stored_scale()) {
    linear.input_scale = 0.01f;
  }
  const int64_t block = scheme.RowBlockFor(linear.out);
  const int64_t group = scheme.GroupSizeFor(linear.in);
  for (int64_t row = 0; row < linear.out; ++row) {
    for (int64_t begin = 0; begin < linear.in; begin += group) {
      float largest = 0;
      const int64_t first = row / block * block;
      for (int64_t r = first; r < std::min(linear.out, first + block); ++r) {
        for (int64_t i = begin; i < begin + group; ++i) {
          largest = std::max(largest, std::abs(value(r, i)));
        }
      }
      const float scale = RoundTo(scheme.scale_dtype, largest / largest_code * linear.global_scale);
      linear.scales.push_back(scale);
      const float step = linear.EffectiveScale(row, begin / group);
      for (int64_t i = begin; i < begin + group; ++i) {
        const float x = value(row, i) / step;
        const auto code = static_cast<int>(std::lround(x));
        linear.codes.push_back(
            integers ? static_cast<int8_t>(std::clamp(code, scheme.min_code(), scheme.max_code()))
                     : NearestCode(scheme.code_type, x));
      }
    }
  }
  return linear;
}

TinyArtifact::TinyArtifact(Schemes schemes) {
  static int count = 0;
  root_ = fs::temp_directory_path() /
          ("quantmill_verify_" + std::to_string(getpid()) + "_" + std::to_string(count++));
  fs::create_directories(root_);
  WriteDense();
  WriteArtifact(schemes);
}

TinyArtifact::~TinyArtifact() {
  std::error_code ignored;
  fs::remove_all(root_, ignored);
}

const std::vector<std::string>& TinyArtifact::Modules() {
  static const std::vector<std::string> modules = [] {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : TinyTensors()) {
      if (name.find("_proj.") != std::string::npos) {
        names.push_back(name.substr(0, name.size() - std::string(".weight").size()));
      }
    }
    return names;
  }();
  return modules;
}

void TinyArtifact::WriteDense() {
  OutputFolder folder(dense(), false);
  WriteWeights(TinyTensors(), folder);
  folder.WriteText("config.json", TinyConfig().dump(2));
  folder.WriteText("tokenizer.json", R"({"model": {"type": "BPE"}})");
  folder.WriteText("generation_config.json", R"({"eos_token_id": 2})");
  folder.Commit();
}

void TinyArtifact::WriteArtifact(Schemes schemes) {
  const ArtifactWriterFormat& format = FindArtifactFormat("compressed-tensors");
  const bool mixed = schemes == Schemes::kMixed;
  const KvScheme kv = {mixed ? KvScheme::Type::kFp8 : KvScheme::Type::kNone, mixed};
  TensorMap tensors = TinyTensors();
  std::vector<QuantizedModule> modules;
  std::map<std::string, QuantizedLinear> linears;
  nlohmann::json layers = nlohmann::json::array();
  ThreadPool pool(1);
  for (const std::string& name : Modules()) {
    const StoredTensor& weight = tensors.at(name + ".weight");
    const QuantizedLinear linear = RoundToNearest(weight, mixed ? MixedScheme(name) : TinyScheme());
    modules.push_back({name, linear.scheme, linear.out, linear.in});
    layers.push_back(
        {{"name", name},
         {"scheme", Describe(linear.scheme)},
         {"relative_error", 0.01},
         {"weight_error",
          WeightError(linear, {weight.bytes.data(), DType::kF16, linear.out, linear.in, linear.in},
                      pool)}});
    tensors.erase(name + ".weight");
    linears[name] = linear;
  }

  OutputFolder folder(artifact(), false);
  std::vector<TensorDeclaration> declarations;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back({name, tensor.dtype, tensor.shape});
  }
  for (const QuantizedModule& module : modules) {
    for (TensorDeclaration& declaration : format.Declare(module)) {
      declarations.push_back(std::move(declaration));
    }
  }
  for (int block = 0; block < kBlocks; ++block) {
    for (TensorDeclaration& declaration : format.DeclareKv(AttentionOf(block), kv, 1)) {
      declarations.push_back(std::move(declaration));
    }
  }
  CheckpointWriter writer(folder, declarations);
  for (const auto& [name, tensor] : tensors) writer.Write(name, tensor.bytes);
  for (const auto& [name, linear] : linears) format.Write(name, linear, writer);
  for (int block = 0; mixed && block < kBlocks; ++block) {
    format.WriteKv(AttentionOf(block), {{0.5f}, {0.25f}}, writer);
  }
  writer.Finish();

  nlohmann::json config = TinyConfig();
  config["quantization_config"] =
      format.QuantizationConfig(modules, std::vector<std::string>{"lm_head"}, kv);
  folder.WriteText("config.json", config.dump(2));
  nlohmann::json files;
  for (const std::string name : {"tokenizer.json", "generation_config.json"}) {
    folder.Copy(dense() / name, name);
    files[name] = HashFile(dense() / name);
  }
  folder.WriteText("quantmill.json", nlohmann::json{{"quantmill", "0"},
                                                    {"recipe", {{"kv_scheme", KvText(kv)}}},
                                                    {"layers", layers},
                                                    {"events", nlohmann::json::array()},
                                                    {"files", files}}
                                         .dump());
  folder.Commit();
}

void TinyArtifact::ChangeTensors(const fs::path& folder,
                                 const std::function<void(TensorMap&)>& change) {
  TensorMap tensors = ReadWeights(folder);
  change(tensors);
  const fs::path changed = folder.parent_path() / "changed";
  OutputFolder output(changed, false);
  WriteWeights(tensors, output);
  output.Commit();
  fs::rename(changed / "model.safetensors", folder / "model.safetensors");
  fs::remove_all(changed);
}

void TinyArtifact::ChangeJson(const std::string& file,
                              const std::function<void(nlohmann::json&)>& change) const {
  nlohmann::json json = ReadJsonFile(artifact() / file);
  change(json);
  fs::remove(artifact() / file);
  WriteTextFile(artifact() / file, json.dump());
}

}  // namespace quantmill::test
