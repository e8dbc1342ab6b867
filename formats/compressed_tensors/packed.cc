// pack-quantized: integers of 2 to 8 bits in a dense bitstream. Byte table: compressed_tensors.h.
#include <array>
#include <cstring>

#include "formats/bitstream.h"
#include "formats/compressed_tensors/layout.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// [out, groups] zero points -> [WordsPerRow(out), groups] words, packed along the outputs.
std::vector<uint32_t> PackZeroPoints(const QuantizedLinear& linear) {
  const int64_t groups = linear.groups();
  const int64_t row_words = WordsPerRow(linear.out, linear.scheme.bits);
  std::vector<int8_t> by_group(linear.zero_points.size());
  Transpose<int8_t>(linear.zero_points, linear.out, groups, by_group);
  std::vector<uint32_t> words(static_cast<size_t>(groups * row_words));
  PackCodes(by_group, groups, linear.out, linear.scheme.bits,
            std::as_writable_bytes(std::span(words)));
  std::vector<uint32_t> result(words.size());
  Transpose<uint32_t>(words, groups, row_words, result);
  return result;
}

// The words of rows, checked, where they are in the file.
std::span<const std::byte> FindWords(const ModuleTensors& tensors, const QuantizedModule& module,
                                     RowRange range) {
  const int bits = module.scheme.bits;
  const int64_t row_words = WordsPerRow(module.in, bits);
  const int64_t old_words = (module.in + 32 / bits - 1) / (32 / bits);
  if (old_words != row_words && tensors.Info(kPacked).shape == std::vector{module.out, old_words}) {
    tensors.Fail(kPacked,
                 "was packed by an old library that padded each word; such files cannot be read");
  }
  const auto words =
      LinesOf(tensors.Expect(kPacked, "I32", {module.out, row_words}), module.out, range);
  if (const auto row = FindDirtyPadding(words, range.count(), module.in, bits)) {
    tensors.Fail(kPacked,
                 "row " + std::to_string(range.begin + *row) + " has bits set past its last code");
  }
  return words;
}

void ReadZeroPoints(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                    QuantizedLinear& rows) {
  if (module.scheme.symmetric) return;
  const int bits = module.scheme.bits;
  const int64_t groups = rows.groups();
  const int64_t all_words = WordsPerRow(module.out, bits);
  const RowRange own = {range.begin * bits / 32, WordsPerRow(range.end, bits)};
  const std::vector<uint32_t> stored =
      ToWords(LinesOf(tensors.Expect(kZeroPoint, "I32", {all_words, groups}), all_words, own));
  std::vector<uint32_t> by_group(stored.size());
  Transpose<uint32_t>(stored, own.count(), groups, by_group);
  const auto words = BytesOf(by_group);
  if (const std::optional<int64_t> group = FindDirtyPadding(words, groups, rows.out, bits)) {
    tensors.Fail(kZeroPoint,
                 "column " + std::to_string(*group) + " has bits set past its last zero point");
  }
  std::vector<int8_t> zeros(static_cast<size_t>(groups * rows.out));
  UnpackCodes(words, groups, rows.out, bits, zeros);
  rows.zero_points.resize(zeros.size());
  Transpose<int8_t>(zeros, groups, rows.out, rows.zero_points);
}

// Rounded inputs are read alone: servers differ in which files they take packed.
std::string InputProblem(const QuantScheme& scheme) {
  const InputScheme& input = scheme.input;
  if (input.type == InputScheme::Type::kNone) return "";
  const bool per_token = input.dynamic && input.group_size == InputScheme::kPerToken;
  return per_token && !input.has_block_scales()
             ? ""
             : "packed integers with rounded inputs other than dynamic ones per token";
}

class Layout final : public CompressedTensorsLayout {
 public:
  std::string_view FormatOf(const QuantScheme&) const override { return "pack-quantized"; }
  bool IsReadableAs(std::string_view format, const QuantScheme& scheme) const override {
    return format == FormatOf(scheme);
  }

  std::string Problem(const QuantScheme& scheme) const override {
    if (scheme.bits < 2 || scheme.bits > 8) {
      return "codes of " + std::to_string(scheme.bits) + " bits; 2 to 8 can be stored";
    }
    const int64_t group = scheme.group_size;
    if (group != QuantScheme::kPerChannel && group <= 0) {
      return "a group size of " + std::to_string(group);
    }
    if (scheme.row_block != 1) return "packed integers with scales that rows share";
    return InputProblem(scheme);
  }

  std::string Refusal(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    if (module.in % scheme.GroupSizeFor(module.in) != 0) {
      return "its " + std::to_string(module.in) + " inputs are no multiple of the group size " +
             std::to_string(scheme.group_size) +
             "; use a smaller group, one scale per channel, or leave this layer dense";
    }
    if (!IsDenseFloat(scheme.scale_dtype)) {
      return "scales of type " + std::string(NameOf(scheme.scale_dtype));
    }
    return "";
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    const int64_t groups = scheme.GroupsFor(module.in);
    const auto declare = [&](std::string_view suffix, DType dtype, std::vector<int64_t> shape) {
      return quantmill::Declare(module.name + std::string(suffix), dtype, std::move(shape));
    };
    std::vector<TensorDeclaration> tensors = {
        declare(kPacked, DType::kI32, {module.out, WordsPerRow(module.in, scheme.bits)}),
        declare(kScale, scheme.scale_dtype, {module.out, groups}),
        declare(kShape, DType::kI64, {2})};
    // Never for a symmetric scheme: vLLM cannot load such a file.
    if (!scheme.symmetric) {
      tensors.push_back(
          declare(kZeroPoint, DType::kI32, {WordsPerRow(module.out, scheme.bits), groups}));
    }
    return tensors;
  }

  void PackRows(const QuantizedModule& module, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    PackCodes(rows.codes, rows.out, rows.in, rows.scheme.bits, {to[0].data, to[0].line_bytes});
    PackGrid(module, rows, to);
  }

  bool HasWords() const override { return true; }
  void PackWords(const QuantizedModule& module, const RowBand& band,
                 std::span<const TensorRows> to) const override {
    Fill(to[0], band.words);
    PackGrid(module, band.rows, to);
  }

  // All tensors but the codes'.
  static void PackGrid(const QuantizedModule& module, const QuantizedLinear& rows,
                       std::span<const TensorRows> to) {
    const QuantScheme& scheme = rows.scheme;
    Fill(to[1], EncodeScales(rows.scales, scheme.scale_dtype, SignOf(scheme)));
    Fill(to[2], BytesOf(std::vector<int64_t>{module.out, module.in}));
    if (!scheme.symmetric) Fill(to[3], BytesOf(PackZeroPoints(rows)));
  }

  std::vector<std::string_view> Suffixes(const QuantScheme& scheme) const override {
    std::vector<std::string_view> suffixes = {kPacked, kScale, kShape};
    if (!scheme.symmetric) suffixes.push_back(kZeroPoint);
    return suffixes;
  }

  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors) const override {
    std::array<int64_t, 2> shape{};
    std::memcpy(shape.data(), tensors.Expect(kShape, "I64", {2}).data(), sizeof(shape));
    // The bound keeps every product of sizes below inside 64 bits.
    constexpr int64_t kMax = int64_t{1} << 28;
    if (shape[0] < 1 || shape[1] < 1 || shape[0] > kMax || shape[1] > kMax) {
      tensors.Fail(kShape, "holds the impossible shape " + ShapeString(shape));
    }
    return {shape[0], shape[1]};
  }

  // Scales first: they are small, and a wrong shape is found before the codes are unpacked.
  void ReadRows(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    ReadGrid(tensors, module, range, rows);
    rows.codes.resize(static_cast<size_t>(rows.out * rows.in));
    UnpackCodes(FindWords(tensors, module, range), rows.out, rows.in, module.scheme.bits,
                rows.codes);
  }

  void ReadWords(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                 RowBand& band) const override {
    ReadGrid(tensors, module, range, band.rows);
    band.words = FindWords(tensors, module, range);
  }

 private:
  static void ReadGrid(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                       QuantizedLinear& rows) {
    rows.scales = ReadScales(tensors, module.scheme, {module.out, rows.groups()}, range);
    ReadZeroPoints(tensors, module, range, rows);
  }
};

}  // namespace

const CompressedTensorsLayout& PackedLayout() {
  static const Layout layout;
  return layout;
}

}  // namespace quantmill
