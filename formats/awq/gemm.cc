// The GEMM layout: packing and unpacking. Byte table: awq.h.
#include <array>
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

// [rows, cols] codes or zero points -> [rows, cols / 8] words.
std::vector<uint32_t> PackRows(std::span<const int8_t> codes, int64_t rows, int64_t cols) {
  std::vector<uint32_t> words(static_cast<size_t>(rows * cols / kPerWord), 0);
  for (size_t w = 0; w < words.size(); ++w) {
    for (size_t i = 0; i < kOutputOf.size(); ++i) {
      const auto field = static_cast<uint32_t>(
          codes[w * kPerWord + static_cast<size_t>(kOutputOf[i])] + (1 << (kBits - 1)));
      words[w] |= field << (kBits * i);
    }
  }
  return words;
}

std::vector<int8_t> UnpackRows(std::span<const uint32_t> words) {
  std::vector<int8_t> codes(words.size() * kPerWord);
  for (size_t w = 0; w < words.size(); ++w) {
    for (size_t i = 0; i < kOutputOf.size(); ++i) {
      const auto field = static_cast<int>(words[w] >> (kBits * i) & 0xFU);
      codes[w * kPerWord + static_cast<size_t>(kOutputOf[i])] =
          static_cast<int8_t>(field - (1 << (kBits - 1)));
    }
  }
  return codes;
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

  void Write(const std::string& module, const QuantizedLinear& linear,
             CheckpointWriter& writer) const override {
    CheckConsistent(linear);
    std::vector<int8_t> by_input(linear.codes.size());
    Transpose<int8_t>(linear.codes, linear.out, linear.in, by_input);
    writer.Write(module + std::string(kQweight),
                 BytesOf(PackRows(by_input, linear.in, linear.out)));
    std::vector<int8_t> by_group(linear.zero_points.size());
    Transpose<int8_t>(linear.zero_points, linear.out, linear.groups(), by_group);
    writer.Write(module + std::string(kQzeros),
                 BytesOf(PackRows(by_group, linear.groups(), linear.out)));
    writer.Write(module + std::string(kScales), TransposedScales(linear));
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
    if (scheme.symmetric) {
      return "has zero points for every group; add --asymmetric, or choose gptq or "
             "compressed-tensors";
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
  void ReadInto(const ModuleTensors& tensors, QuantizedLinear& linear) const override {
    const int64_t words = linear.out / kPerWord;
    linear.scales = ReadTransposedScales(tensors, linear);
    const std::vector<int8_t> by_group =
        UnpackRows(ToWords(tensors.Expect(kQzeros, "I32", {linear.groups(), words})));
    linear.zero_points.resize(by_group.size());
    Transpose<int8_t>(by_group, linear.groups(), linear.out, linear.zero_points);
    const std::vector<int8_t> by_input =
        UnpackRows(ToWords(tensors.Expect(kQweight, "I32", {linear.in, words})));
    linear.codes.resize(by_input.size());
    Transpose<int8_t>(by_input, linear.in, linear.out, linear.codes);
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
