// int-, float-, mxfp8- and naive-quantized: one code a byte. Byte table: compressed_tensors.h.
#include <algorithm>

#include "formats/compressed_tensors/layout.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using Input = InputScheme;

constexpr int64_t kPowerGroup = 32;

DType CodeDType(const QuantScheme& scheme) {
  return scheme.code_type == CodeType::kFp8 ? DType::kF8E4M3 : DType::kI8;
}

bool IsBlocks(const QuantScheme& scheme) { return scheme.group_size != QuantScheme::kPerChannel; }
bool IsStatic(const Input& input) { return input.type != Input::Type::kNone && !input.dynamic; }

int64_t RowBlocks(const QuantScheme& scheme, int64_t out) {
  const int64_t block = scheme.RowBlockFor(out);
  return (out + block - 1) / block;
}

// Of scales and zero points.
std::vector<int64_t> GridShape(const QuantScheme& scheme, int64_t out, int64_t in) {
  if (scheme.row_block == QuantScheme::kAllRows) return {1};
  return {RowBlocks(scheme, out), scheme.GroupsFor(in)};
}

bool HasPowerScales(const QuantScheme& scheme) { return scheme.scale_dtype == DType::kF8E8M0; }

std::string WeightProblem(const QuantScheme& scheme) {
  const bool integers = scheme.code_type == CodeType::kInt;
  if (scheme.bits < 2 || scheme.bits > 8)
    return "codes of " + std::to_string(scheme.bits) + " bits";
  if (HasPowerScales(scheme)) {
    return !integers && scheme.row_block == 1 && scheme.group_size == kPowerGroup
               ? ""
               : "scales that are powers of two, of other groups than 32 inputs of one output";
  }
  if (!IsBlocks(scheme)) {
    if (scheme.row_block == 1 || scheme.row_block == QuantScheme::kAllRows) return "";
    return "scales of blocks of rows without blocks of inputs";
  }
  if (scheme.group_size <= 0) return "groups of " + std::to_string(scheme.group_size) + " inputs";
  if (integers == (scheme.row_block == 1)) return "";
  return integers ? "integers with scales of blocks of rows"
                  : "FP8 weights with scales of groups of " + std::to_string(scheme.group_size) +
                        " inputs; they have one a channel, tensor or block";
}

std::string FloatInputProblem(const QuantScheme& scheme) {
  const Input& input = scheme.input;
  if (HasPowerScales(scheme) || input.has_block_scales()) {
    return input.type == Input::Type::kFp8 && input.scale_dtype == scheme.scale_dtype &&
                   input.group_size == scheme.group_size
               ? ""
               : "weights and inputs of which one alone has scales that are powers of two";
  }
  if (input.type != Input::Type::kFp8) return "FP8 weights with INT8 inputs";
  if (!IsBlocks(scheme)) {
    return input.dynamic && input.group_size != Input::kPerToken
               ? "inputs in groups, which only FP8 blocks have"
               : "";
  }
  if (IsStatic(input)) return "FP8 blocks with static inputs";
  return input.group_size == scheme.group_size
             ? ""
             : "FP8 blocks need dynamic inputs in groups as long as a block";
}

std::string InputProblem(const QuantScheme& scheme) {
  const Input& input = scheme.input;
  // FP8 alone: integers would be packed.
  if (input.type == Input::Type::kNone) return "";
  if (!input.symmetric && (input.dynamic || input.type != Input::Type::kInt8)) {
    return "asymmetric inputs other than static INT8";
  }
  if (scheme.code_type == CodeType::kFp8) return FloatInputProblem(scheme);
  if (input.type == Input::Type::kFp4 || input.has_block_scales()) {
    return "integer weights with inputs of FP4 or of scales that are powers of two";
  }
  return input.dynamic && input.group_size != Input::kPerToken
             ? "integer weights with inputs in groups"
             : "";
}

// What servers have no kernel for, read but never written.
std::string IntegerRefusal(const QuantScheme& scheme) {
  if (scheme.bits != 8) {
    return "integer weights of " + std::to_string(scheme.bits) +
           " bits with rounded inputs; use 8 bits, or leave the inputs as they are";
  }
  if (!scheme.symmetric) {
    return "asymmetric weights with rounded inputs, which servers cannot load (vLLM multiplies "
           "them as symmetric integers alone)";
  }
  if (scheme.input.type != Input::Type::kInt8) return "integer weights with FP8 inputs";
  if (!IsBlocks(scheme)) return "";
  return "8-bit weights with scales of groups of " + std::to_string(scheme.group_size) +
         " inputs; they have one a channel or tensor, and FP8 also one a block";
}

class Layout final : public CompressedTensorsLayout {
 public:
  std::string_view FormatOf(const QuantScheme& scheme) const override {
    if (scheme.code_type == CodeType::kInt) return "int-quantized";
    if (HasPowerScales(scheme)) return "mxfp8-quantized";
    return scheme.input.type == Input::Type::kNone ? "naive-quantized" : "float-quantized";
  }
  bool IsReadableAs(std::string_view format, const QuantScheme& scheme) const override {
    if (HasPowerScales(scheme)) return format == FormatOf(scheme);
    return format == "naive-quantized" ||
           format == (scheme.code_type == CodeType::kInt ? "int-quantized" : "float-quantized");
  }

  std::string Problem(const QuantScheme& scheme) const override {
    const std::string weight = WeightProblem(scheme);
    return weight.empty() ? InputProblem(scheme) : weight;
  }

  std::string Refusal(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    if (scheme.code_type == CodeType::kInt) {
      if (std::string refusal = IntegerRefusal(scheme); !refusal.empty()) return refusal;
    }
    if (!IsDenseFloat(scheme.scale_dtype)) {
      return "scales of type " + std::string(NameOf(scheme.scale_dtype));
    }
    if (IsBlocks(scheme) && module.in % scheme.group_size != 0) {
      return "its " + std::to_string(module.in) + " inputs are no multiple of the block's " +
             std::to_string(scheme.group_size) +
             ", without which neither vLLM nor the library can run the layer; use one scale per "
             "channel, or leave this layer dense";
    }
    return "";
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    const auto declare = [&](std::string_view suffix, DType dtype, std::vector<int64_t> shape) {
      return quantmill::Declare(module.name + std::string(suffix), dtype, std::move(shape));
    };
    std::vector<TensorDeclaration> tensors = {
        declare(kWeight, CodeDType(scheme), {module.out, module.in}),
        declare(kScale, scheme.scale_dtype, GridShape(scheme, module.out, module.in))};
    if (IsStatic(scheme.input)) {
      tensors.push_back(declare(kInputScale, DType::kF32, {1}));
      // Never for symmetric inputs, as for weights.
      if (!scheme.input.symmetric) tensors.push_back(declare(kInputZeroPoint, DType::kI8, {1}));
    }
    return tensors;
  }

  void PackRows(const QuantizedModule&, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    const QuantScheme& scheme = rows.scheme;
    Fill(to[0], BytesOf(rows.codes));
    Fill(to[1], EncodeScales(OneScaleOfRowBlock(rows), scheme.scale_dtype, SignOf(scheme)));
    if (!IsStatic(scheme.input)) return;
    const std::vector<float> scale = {rows.input_scale};
    Fill(to[2], EncodeScales(scale, DType::kF32, ScaleSign::kPositive));
    if (!scheme.input.symmetric) Fill(to[3], BytesOf(std::vector{rows.input_zero_point}));
  }

  std::vector<std::string_view> Suffixes(const QuantScheme& scheme) const override {
    std::vector<std::string_view> suffixes = {kWeight, kScale};
    if (!scheme.symmetric) suffixes.push_back(kZeroPoint);
    if (IsStatic(scheme.input)) {
      suffixes.push_back(kInputScale);
      if (!scheme.input.symmetric) suffixes.push_back(kInputZeroPoint);
    }
    return suffixes;
  }

  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors) const override {
    const bool floats = tensors.Info(kWeight).dtype == NameOf(DType::kF8E4M3);
    return tensors.ExpectMatrix(kWeight, NameOf(floats ? DType::kF8E4M3 : DType::kI8));
  }

  void ReadRows(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    const QuantScheme& scheme = module.scheme;
    const std::vector<int64_t> grid = GridShape(scheme, module.out, module.in);
    const int64_t block = scheme.RowBlockFor(module.out);
    const RowRange blocks = {range.begin / block, RowBlocks(scheme, range.end)};
    rows.scales = RepeatScalesOfRowBlocks(ReadScales(tensors, scheme, grid, blocks), rows.out,
                                          rows.groups(), block);
    if (!scheme.symmetric) {
      const auto zeros = LinesOf(tensors.Expect(kZeroPoint, "I8", grid), grid.front(), blocks);
      for (int64_t row = 0; row < rows.out; ++row) {
        for (int64_t g = 0; g < rows.groups(); ++g) {
          const int64_t at = row / block * rows.groups() + g;
          rows.zero_points.push_back(static_cast<int8_t>(zeros[static_cast<size_t>(at)]));
        }
      }
      CheckCodes(tensors, kZeroPoint, rows.zero_points, range.begin, rows);
    }
    ReadInput(tensors, rows);
    if (scheme.code_type == CodeType::kFp8) {
      ReadFp8Codes(tensors, kWeight, module, range, rows);
    } else {
      ReadByteCodes(tensors, kWeight, DType::kI8, module, range, rows);
      CheckCodes(tensors, kWeight, rows.codes, range.begin, rows);
    }
  }

 private:
  // Codes, or zero points, of fewer bits than a byte has. `first`: the row that they begin with.
  static void CheckCodes(const ModuleTensors& tensors, std::string_view suffix,
                         const std::vector<int8_t>& codes, int64_t first,
                         const QuantizedLinear& rows) {
    const QuantScheme& scheme = rows.scheme;
    const auto bad = std::ranges::find_if(
        codes, [&](int8_t code) { return code < scheme.min_code() || code > scheme.max_code(); });
    if (bad == codes.end()) return;
    const int64_t columns = std::ssize(codes) / rows.out;
    const int64_t index = bad - codes.begin();
    tensors.Fail(suffix, "element [" + std::to_string(first + index / columns) + ", " +
                             std::to_string(index % columns) + "] is " + std::to_string(*bad) +
                             ", which " + std::to_string(scheme.bits) + " bits do not hold");
  }
  static void ReadInput(const ModuleTensors& tensors, QuantizedLinear& linear) {
    const Input& input = linear.scheme.input;
    if (!IsStatic(input)) return;
    linear.input_scale = ReadPositive(tensors, kInputScale);
    if (!input.symmetric) {
      linear.input_zero_point = static_cast<int8_t>(tensors.Expect(kInputZeroPoint, "I8", {1})[0]);
    }
  }
};

}  // namespace

const CompressedTensorsLayout& PlainLayout() {
  static const Layout layout;
  return layout;
}

}  // namespace quantmill
