#include "formats/fp8.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "formats/config_field.h"
#include "formats/module_reader.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kScale = ".weight_scale";
constexpr std::string_view kBlockScale = ".weight_scale_inv";
constexpr std::string_view kInputScale = ".input_scale";

bool IsBlocks(const QuantScheme& scheme) { return scheme.group_size != QuantScheme::kPerChannel; }
std::string_view ScaleOf(const QuantScheme& scheme) {
  return IsBlocks(scheme) ? kBlockScale : kScale;
}

std::vector<int64_t> ScaleShape(const QuantScheme& scheme, int64_t out, int64_t in) {
  if (!IsBlocks(scheme)) return {1};
  const int64_t block = scheme.RowBlockFor(out);
  return {(out + block - 1) / block, scheme.GroupsFor(in)};
}

std::string Refusal(const QuantizedModule& module) {
  const QuantScheme& scheme = module.scheme;
  if (scheme.code_type != CodeType::kFp8 || scheme.input.type != InputScheme::Type::kFp8) {
    return "holds FP8 weights with FP8 inputs, not " + Describe(scheme);
  }
  if (!IsBlocks(scheme) && scheme.row_block != QuantScheme::kAllRows) {
    return "has one scale a tensor or a block, not one a channel; choose fp8-tensor, fp8-static or "
           "fp8-block, or compressed-tensors";
  }
  if (IsBlocks(scheme)) {
    if (!scheme.input.dynamic || scheme.input.group_size != scheme.group_size) {
      return "blocks need dynamic inputs in groups as long as a block";
    }
    for (const auto& [size, block, what] : {std::tuple{module.in, scheme.group_size, "inputs"},
                                            std::tuple{module.out, scheme.row_block, "outputs"}}) {
      if (size >= 1 && size % block == 0) continue;
      return "its " + std::to_string(size) + " " + what + " are no multiple of the block's " +
             std::to_string(block) +
             ", which servers cannot run; choose fp8-tensor, or leave this "
             "layer dense";
    }
  }
  if (module.name == "lm_head") return "loaders expect lm_head dense";
  if (scheme.scale_dtype != DType::kF32) return "scales are F32";
  return "";
}

class Format final : public WriterWithoutCache {
 public:
  std::string_view name() const override { return "fp8"; }
  std::optional<DType> scale_type() const override { return DType::kF32; }

  void CheckSupported(const QuantizedModule& module) const override {
    const std::string why = Refusal(module);
    if (!why.empty()) throw Error(ErrorCode::kUsage, module.name, "fp8: " + why);
  }

  void CheckTogether(std::span<const QuantizedModule> modules) const override {
    for (const QuantizedModule& module : modules) {
      if (module.scheme == modules.front().scheme) continue;
      throw Error(ErrorCode::kUsage, module.name,
                  "fp8: is " + Describe(module.scheme) + ", and " + modules.front().name + " " +
                      Describe(modules.front().scheme) +
                      "; an fp8 file has one scheme (compressed-tensors holds mixes)");
    }
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const auto declare = [&](std::string_view suffix, DType dtype, std::vector<int64_t> shape) {
      return quantmill::Declare(module.name + std::string(suffix), dtype, std::move(shape));
    };
    const QuantScheme& scheme = module.scheme;
    std::vector<TensorDeclaration> tensors = {
        declare(kWeight, DType::kF8E4M3, {module.out, module.in}),
        declare(ScaleOf(scheme), DType::kF32, ScaleShape(scheme, module.out, module.in))};
    if (!scheme.input.dynamic) tensors.push_back(declare(kInputScale, DType::kF32, {1}));
    return tensors;
  }

  void PackRows(const QuantizedModule&, int64_t, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    Fill(to[0], BytesOf(rows.codes));
    Fill(to[1], EncodeScales(OneScaleOfRowBlock(rows), DType::kF32, ScaleSign::kPositive));
    if (rows.scheme.input.dynamic) return;
    const std::vector<float> input = {rows.input_scale};
    Fill(to[2], EncodeScales(input, DType::kF32, ScaleSign::kPositive));
  }

  nlohmann::json QuantizationConfig(std::span<const QuantizedModule> modules,
                                    std::span<const std::string> dense,
                                    const KvScheme& kv) const override {
    CheckSupportedKv(kv);
    Check(!modules.empty(), "a quantization_config needs a quantized module");
    const QuantScheme& scheme = modules.front().scheme;
    nlohmann::json config = {{"quant_method", "fp8"},
                             {"fmt", "e4m3"},
                             {"activation_scheme", scheme.input.dynamic ? "dynamic" : "static"},
                             {"ignored_layers", dense},
                             {"modules_to_not_convert", dense}};
    if (IsBlocks(scheme)) config["weight_block_size"] = {scheme.row_block, scheme.group_size};
    return config;
  }
};

// {rows, inputs} of a block; empty: one scale a tensor.
std::optional<std::pair<int64_t, int64_t>> ParseBlock(const ConfigField& top) {
  const nlohmann::json* const size = top.Get("weight_block_size");
  if (size == nullptr) return std::nullopt;
  const auto is_length = [](const nlohmann::json& n) {
    return n.is_number_integer() && n.get<int64_t>() >= 1 && n.get<int64_t>() <= 1 << 20;
  };
  if (!size->is_array() || size->size() != 2 || !is_length((*size)[0]) || !is_length((*size)[1])) {
    top.Fail("weight_block_size", "is " + size->dump() + ", not two lengths such as [128, 128]");
  }
  return std::pair{(*size)[0].get<int64_t>(), (*size)[1].get<int64_t>()};
}

QuantScheme ParseConfig(const nlohmann::json& config, const std::string& where) {
  const ConfigField top(config, "quantization_config", where);
  if (const std::string fmt = top.Text("fmt", "e4m3"); fmt != "e4m3") {
    top.Fail("fmt", "is '" + fmt + "'; e4m3 can be read");
  }
  const std::string inputs = top.Text("activation_scheme", "dynamic");
  if (inputs != "dynamic" && inputs != "static") {
    top.Fail("activation_scheme", "is '" + inputs + "', not dynamic or static");
  }
  QuantScheme scheme;
  scheme.bits = 8;
  scheme.code_type = CodeType::kFp8;
  scheme.group_size = QuantScheme::kPerChannel;
  scheme.row_block = QuantScheme::kAllRows;
  scheme.input.type = InputScheme::Type::kFp8;
  scheme.input.dynamic = inputs == "dynamic";
  if (const auto block = ParseBlock(top)) {
    if (!scheme.input.dynamic) top.Fail("activation_scheme", "is static, which blocks cannot be");
    std::tie(scheme.row_block, scheme.group_size) = *block;
    scheme.input.group_size = scheme.group_size;
  }
  return scheme;
}

class Reader final : public ModuleReader {
 public:
  explicit Reader(const Checkpoint& checkpoint)
      : ModuleReader(checkpoint, {kWeight, kScale, kBlockScale, kInputScale},
                     NameOf(DType::kF8E4M3)),
        scheme_(ParseConfig(checkpoint.config().at("quantization_config"), config_path())) {}

  std::string_view format() const override { return "fp8"; }

 protected:
  std::string_view ScaleSuffix(const ModuleTensors&) const override { return ScaleOf(scheme_); }
  QuantScheme StoredScheme(const ModuleTensors&) const override { return scheme_; }

  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors,
                                        const QuantScheme&) const override {
    return tensors.ExpectMatrix(kWeight, NameOf(DType::kF8E4M3));
  }

  void ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    const std::string_view suffix = ScaleOf(scheme_);
    std::vector<int64_t> shape = ScaleShape(scheme_, module.out, module.in);
    const int64_t blocks = shape.front();
    if (tensors.Info(suffix).shape.empty()) shape.clear();  // a scalar
    const DType dtype = module.scheme.scale_dtype;
    const int64_t block = scheme_.RowBlockFor(module.out);
    const RowRange own = {range.begin / block, (range.end + block - 1) / block};
    const std::vector<float> scales =
        DecodeScales(LinesOf(tensors.Expect(suffix, NameOf(dtype), shape), blocks, own), dtype);
    if (const auto bad = FindBadScale(scales, ScaleSign::kPositive, own.begin * rows.groups())) {
      tensors.Fail(suffix, *bad);
    }
    rows.scales = RepeatScalesOfRowBlocks(scales, rows.out, rows.groups(), block);
    if (!scheme_.input.dynamic) rows.input_scale = ReadPositive(tensors, kInputScale);
    ReadFp8Codes(tensors, kWeight, module, range, rows);
  }

 private:
  QuantScheme scheme_;
};

}  // namespace

const ArtifactWriterFormat& Fp8Format() {
  static const Format format;
  return format;
}

std::unique_ptr<ArtifactReader> OpenFp8(const Checkpoint& checkpoint) {
  return std::make_unique<Reader>(checkpoint);
}

}  // namespace quantmill
