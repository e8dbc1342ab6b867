// nvfp4- and mxfp4-pack-quantized: two E2M1 codes a byte. Byte table: compressed_tensors.h.
#include "formats/compressed_tensors/layout.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// The one group size of each.
int64_t GroupSize(const QuantScheme& scheme) { return scheme.has_global_scale() ? 16 : 32; }

// FP4 of the weight's kind, or FP8 with plain scales.
std::string InputProblem(const QuantScheme& scheme) {
  const InputScheme& input = scheme.input;
  if (input.type == InputScheme::Type::kNone) return "";
  const std::string kind = scheme.has_global_scale() ? "nvfp4" : "mxfp4";
  if (input.type == InputScheme::Type::kInt8) return kind + " weights with INT8 inputs";
  if (!input.dynamic) return kind + " weights with static inputs";
  if (!input.has_block_scales()) return "";
  const bool alike = input.type == InputScheme::Type::kFp4 &&
                     input.scale_dtype == scheme.scale_dtype &&
                     input.group_size == scheme.group_size;
  return alike ? "" : kind + " weights with inputs of another kind of groups";
}

class Layout final : public CompressedTensorsLayout {
 public:
  std::string_view FormatOf(const QuantScheme& scheme) const override {
    return scheme.has_global_scale() ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized";
  }
  bool IsReadableAs(std::string_view format, const QuantScheme& scheme) const override {
    return format == FormatOf(scheme);
  }

  std::string Problem(const QuantScheme& scheme) const override {
    if (scheme.scale_dtype != DType::kF8E4M3 && scheme.scale_dtype != DType::kF8E8M0) {
      return "FP4 with scales of type " + std::string(NameOf(scheme.scale_dtype));
    }
    const int64_t group = GroupSize(scheme);
    if (scheme.bits != 4 || !scheme.symmetric || scheme.row_block != 1 ||
        scheme.group_size != group) {
      return std::string(FormatOf(scheme)) + " has scales of groups of " + std::to_string(group) +
             " inputs of one output, and no zero points";
    }
    return InputProblem(scheme);
  }

  std::string Refusal(const QuantizedModule& module) const override {
    const int64_t group = GroupSize(module.scheme);
    if (module.in % group != 0) {
      return "its " + std::to_string(module.in) + " inputs are no multiple of the group size " +
             std::to_string(group) + " of " + std::string(FormatOf(module.scheme)) +
             "; leave this layer dense";
    }
    return "";
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    std::vector<TensorDeclaration> tensors = {
        {module.name + std::string(kPacked), "U8", {module.out, module.in / 2}},
        {module.name + std::string(kScale),
         std::string(StoredScaleType(scheme)),
         {module.out, scheme.GroupsFor(module.in)}}};
    if (scheme.has_global_scale()) {
      tensors.push_back(
          quantmill::Declare(module.name + std::string(kGlobalScale), DType::kF32, {1}));
    }
    if (scheme.input.has_global_scale()) {
      tensors.push_back(
          quantmill::Declare(module.name + std::string(kInputGlobalScale), DType::kF32, {1}));
    }
    return tensors;
  }

  void PackRows(const QuantizedModule&, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    const QuantScheme& scheme = rows.scheme;
    for (size_t i = 0; i < to[0].line_bytes; ++i) {
      const auto even = static_cast<uint8_t>(rows.codes[2 * i]);
      const auto odd = static_cast<uint8_t>(rows.codes[2 * i + 1]);
      Check((even | odd) < 16, "an FP4 code is above 15");
      to[0].data[i] = static_cast<std::byte>(even | odd << 4);
    }
    Fill(to[1], EncodeScales(rows.scales, scheme.scale_dtype, SignOf(scheme)));
    if (!scheme.has_global_scale()) return;
    const std::vector<float> global = {rows.global_scale};
    Fill(to[2], EncodeScales(global, DType::kF32, ScaleSign::kPositive));
    if (!scheme.input.has_global_scale()) return;
    const std::vector<float> inputs = {rows.input_scale};
    Fill(to[3], EncodeScales(inputs, DType::kF32, ScaleSign::kPositive));
  }

  std::vector<std::string_view> Suffixes(const QuantScheme& scheme) const override {
    std::vector<std::string_view> suffixes = {kPacked, kScale};
    if (scheme.has_global_scale()) suffixes.push_back(kGlobalScale);
    if (scheme.input.has_global_scale()) suffixes.push_back(kInputGlobalScale);
    return suffixes;
  }

  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors) const override {
    const auto [out, bytes] = tensors.ExpectMatrix(kPacked, "U8");
    return {out, 2 * bytes};
  }

  void ReadRows(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    const QuantScheme& scheme = module.scheme;
    if (module.in % scheme.group_size != 0) {
      tensors.Fail(kPacked, "its " + std::to_string(module.in) +
                                " inputs are no multiple of the group size " +
                                std::to_string(scheme.group_size));
    }
    rows.scales = ReadScales(tensors, scheme, {module.out, rows.groups()}, range);
    if (scheme.has_global_scale()) rows.global_scale = ReadPositive(tensors, kGlobalScale);
    if (scheme.input.has_global_scale()) {
      rows.input_scale = ReadPositive(tensors, kInputGlobalScale);
    }
    const auto packed =
        LinesOf(tensors.Expect(kPacked, "U8", {module.out, module.in / 2}), module.out, range);
    rows.codes.resize(packed.size() * 2);
    for (size_t i = 0; i < packed.size(); ++i) {
      rows.codes[2 * i] = static_cast<int8_t>(packed[i] & std::byte{15});
      rows.codes[2 * i + 1] = static_cast<int8_t>(packed[i] >> 4);
    }
  }
};

}  // namespace

const CompressedTensorsLayout& Fp4Layout() {
  static const Layout layout;
  return layout;
}

}  // namespace quantmill
