// The GEMM layout: packing and unpacking. Byte table: awq.h.
#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/awq.h"
#include "formats/awq/layouts.h"
#include "formats/bitstream.h"
#include "formats/qweight.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr int kBits = kAwqBits;
constexpr int64_t kPerWord = kAwqPerWord;
// Which of a word's eight outputs lies in its i-th four bits.
constexpr std::array<int64_t, kPerWord> kOutputOf = {0, 2, 4, 6, 1, 3, 5, 7};

// Inputs lie along the lines of the file, outputs along a word. Tiles of both are turned in the
// first-level cache: as many outputs as a cache line holds, and inputs for 32 words of an output.
constexpr int64_t kTileWords = 16;
constexpr int64_t kTileOutputs = kTileWords * kPerWord;
constexpr int64_t kTileInputs = 32 * kPerWord;

// Eight words of each column; the fields of a column are a square.
using Square = std::array<std::array<uint32_t, kTileWords>, kPerWord>;

// Field i of word j becomes field j of word i, in all columns at once: off-diagonal squares of 4, 2
// and 1 fields change places.
void TransposeFields(Square& words) {
  constexpr std::array<std::pair<size_t, uint32_t>, 3> kSteps = {
      {{4, 0x0000FFFFU}, {2, 0x00FF00FFU}, {1, 0x0F0F0F0FU}}};
  for (const auto& [size, mask] : kSteps) {
    const auto shift = static_cast<int>(size) * kBits;
    for (size_t i = 0; i < words.size(); ++i) {
      if ((i & size) != 0) continue;
      for (size_t c = 0; c < words[i].size(); ++c) {
        const uint32_t moved = (words[i][c] >> shift ^ words[i + size][c]) & mask;
        words[i][c] ^= moved << shift;
        words[i + size][c] ^= moved;
      }
    }
  }
}

// One tile by outputs: the codes of an output in words of their own.
using OutputWords = std::array<std::array<uint32_t, kTileInputs / kPerWord>, kTileOutputs>;

// The word of the output at `place` in word `column` of a line, with `input` in it.
uint32_t& WordOf(OutputWords& words, int64_t column, size_t place, int64_t input) {
  const auto output = static_cast<size_t>(column * kPerWord + kOutputOf[place]);
  return words[output][static_cast<size_t>(input / kPerWord)];
}

// Codes or zero points [outputs, inputs] -> lines of words, `stride` bytes apart: bits 4i of word c
// of line k hold output 8c + kOutputOf[i] of input k.
void PackLines(std::span<const int8_t> codes, int64_t outputs, int64_t inputs, std::byte* lines,
               size_t stride) {
  const auto pack_tile = [&](int64_t o, int64_t tile_outputs, int64_t k, int64_t count) {
    OutputWords by_output;
    const auto words = static_cast<size_t>(WordsPerRow(count, kBits));
    for (int64_t i = 0; i < tile_outputs; ++i) {
      const auto from = static_cast<size_t>((o + i) * inputs + k);
      PackCodes(codes.subspan(from, static_cast<size_t>(count)), 1, count, kBits,
                std::as_writable_bytes(std::span(by_output[static_cast<size_t>(i)]).first(words)));
    }
    const int64_t columns = tile_outputs / kPerWord;
    for (int64_t input = 0; input < count; input += kPerWord) {
      Square square{};
      for (int64_t c = 0; c < columns; ++c) {
        for (size_t i = 0; i < square.size(); ++i) {
          square[i][static_cast<size_t>(c)] = WordOf(by_output, c, i, input);
        }
      }
      TransposeFields(square);
      for (int64_t i = 0; i < std::min(kPerWord, count - input); ++i) {
        std::memcpy(lines + static_cast<size_t>(k + input + i) * stride + o / kPerWord * kWordBytes,
                    square[static_cast<size_t>(i)].data(),
                    static_cast<size_t>(columns * kWordBytes));
      }
    }
  };
  ForEachTile(outputs, inputs, kTileOutputs, kTileInputs, pack_tile);
}

// The inverse.
void UnpackLines(const std::byte* lines, size_t stride, int64_t outputs, int64_t inputs,
                 std::span<int8_t> codes) {
  const auto unpack_tile = [&](int64_t o, int64_t tile_outputs, int64_t k, int64_t count) {
    OutputWords by_output;
    const int64_t columns = tile_outputs / kPerWord;
    for (int64_t input = 0; input < count; input += kPerWord) {
      Square square{};
      for (int64_t i = 0; i < std::min(kPerWord, count - input); ++i) {
        std::memcpy(square[static_cast<size_t>(i)].data(),
                    lines + static_cast<size_t>(k + input + i) * stride + o / kPerWord * kWordBytes,
                    static_cast<size_t>(columns * kWordBytes));
      }
      TransposeFields(square);
      for (int64_t c = 0; c < columns; ++c) {
        for (size_t i = 0; i < square.size(); ++i) {
          WordOf(by_output, c, i, input) = square[i][static_cast<size_t>(c)];
        }
      }
    }
    const auto words = static_cast<size_t>(WordsPerRow(count, kBits));
    for (int64_t i = 0; i < tile_outputs; ++i) {
      const auto to = static_cast<size_t>((o + i) * inputs + k);
      UnpackCodes(std::as_bytes(std::span(by_output[static_cast<size_t>(i)]).first(words)), 1,
                  count, kBits, codes.subspan(to, static_cast<size_t>(count)));
    }
  };
  ForEachTile(outputs, inputs, kTileOutputs, kTileInputs, unpack_tile);
}

class Format final : public WriterWithoutCache {
 public:
  std::string_view name() const override { return "awq"; }
  std::optional<DType> scale_type() const override { return DType::kF16; }
  bool needs_zero_points() const override { return true; }

  void CheckSupported(const QuantizedModule& module) const override {
    const std::string why = Refusal(module);
    if (!why.empty()) throw Error(ErrorCode::kUsage, module.name, "awq: " + why);
  }

  void CheckTogether(std::span<const QuantizedModule> modules) const override {
    for (const QuantizedModule& module : modules) {
      if (module.scheme == modules.front().scheme) continue;
      throw Error(ErrorCode::kUsage, module.name,
                  "awq: is " + Describe(module.scheme) + ", and " + modules.front().name + " " +
                      Describe(modules.front().scheme) +
                      "; an awq file has one scheme (gptq and compressed-tensors hold mixes)");
    }
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const int64_t groups = module.scheme.GroupsFor(module.in);
    const auto declare = [&](std::string_view suffix, DType dtype, std::vector<int64_t> shape) {
      return quantmill::Declare(module.name + std::string(suffix), dtype, std::move(shape));
    };
    return {declare(kQweight, DType::kI32, {module.in, module.out / kPerWord}),
            declare(kQzeros, DType::kI32, {groups, module.out / kPerWord}),
            declare(kScales, DType::kF16, {groups, module.out})};
  }

  void PackRows(const QuantizedModule&, int64_t, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    PackLines(rows.codes, rows.out, rows.in, to[0].data, to[0].stride);
    PackLines(rows.zero_points, rows.out, rows.groups(), to[1].data, to[1].stride);
    Fill(to[2], TransposedScales(rows));
  }

  nlohmann::json QuantizationConfig(std::span<const QuantizedModule> modules,
                                    std::span<const std::string> dense,
                                    const KvScheme& kv) const override {
    CheckSupportedKv(kv);
    Check(!modules.empty(), "a quantization_config needs a quantized module");
    return {{"quant_method", "awq"}, {"version", "gemm"},
            {"bits", kBits},         {"group_size", modules.front().scheme.group_size},
            {"zero_point", true},    {"modules_to_not_convert", dense}};
  }

 private:
  static std::string Refusal(const QuantizedModule& module) {
    const QuantScheme& scheme = module.scheme;
    if (scheme.code_type != CodeType::kInt || scheme.bits != kBits || scheme.row_block != 1 ||
        scheme.input.type != InputScheme::Type::kNone) {
      return "holds weight-only integers of 4 bits, not " + Describe(scheme);
    }
    if (module.name == "lm_head") return "loaders expect lm_head dense";
    if (module.out < 1 || module.out % kPerWord != 0) {
      return "its " + std::to_string(module.out) + " outputs are no multiple of 8";
    }
    if (module.in < 1 || module.in % scheme.GroupSizeFor(module.in) != 0) {
      return "its " + std::to_string(module.in) + " inputs are no multiple of the group size " +
             std::to_string(scheme.group_size);
    }
    if (scheme.scale_dtype != DType::kF16) return "scales are F16";
    // Last, because convert gives such layers zero points: they are not what stops it.
    if (scheme.symmetric) {
      return "has zero points for every group; add --asymmetric, or choose gptq or "
             "compressed-tensors";
    }
    return "";
  }
};

class Reader final : public AwqReader {
 public:
  using AwqReader::AwqReader;

 protected:
  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors,
                                        const QuantScheme&) const override {
    const auto [in, words] = tensors.ExpectMatrix(kQweight, "I32");
    return {words * kPerWord, in};
  }
  void ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    rows.scales = ReadTransposedScales(tensors, module, range);
    const int64_t words = module.out / kPerWord;
    const auto unpack = [&](std::string_view suffix, int64_t lines, std::vector<int8_t>& fields) {
      const auto bytes = tensors.Expect(suffix, "I32", {lines, words});
      fields.resize(static_cast<size_t>(rows.out * lines));
      UnpackLines(bytes.data() + range.begin / kPerWord * kWordBytes,
                  static_cast<size_t>(words * kWordBytes), rows.out, lines, fields);
    };
    unpack(kQzeros, rows.groups(), rows.zero_points);
    unpack(kQweight, rows.in, rows.codes);
  }
};

}  // namespace

const ArtifactWriterFormat& AwqFormat() {
  static const Format format;
  return format;
}

std::unique_ptr<ArtifactReader> OpenAwqGemm(const Checkpoint& checkpoint,
                                            const QuantScheme& scheme) {
  return std::make_unique<Reader>(checkpoint, scheme);
}

}  // namespace quantmill
