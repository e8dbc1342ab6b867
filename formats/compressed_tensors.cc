// Packing: QuantizedLinear -> tensors. Reading is in compressed_tensors_reader.cc.
#include "formats/compressed_tensors.h"

#include <utility>

#include "formats/bitstream.h"
#include "formats/compressed_tensors_config.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

template <typename T>
std::span<const std::byte> AsBytes(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// [out, groups] zero points -> [WordsPerRow(out), groups] words, packed along the outputs.
std::vector<uint32_t> PackZeroPoints(const QuantizedLinear& linear) {
  const int64_t groups = linear.groups();
  const int64_t row_words = WordsPerRow(linear.out, linear.scheme.bits);
  std::vector<int8_t> by_group(linear.zero_points.size());
  Transpose<int8_t>(linear.zero_points, linear.out, groups, by_group);
  std::vector<uint32_t> words(static_cast<size_t>(groups * row_words));
  PackCodes(by_group, groups, linear.out, linear.scheme.bits, words);
  std::vector<uint32_t> result(words.size());
  Transpose<uint32_t>(words, groups, row_words, result);
  return result;
}

class Format final : public ArtifactWriterFormat {
 public:
  std::string_view name() const override { return "compressed-tensors"; }

  void CheckSupported(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorCode::kUsage, module.name, "compressed-tensors: " + why);
    };
    if (scheme.bits < 2 || scheme.bits > 8) {
      refuse("codes of " + std::to_string(scheme.bits) + " bits; 2 to 8 can be stored");
    }
    if (module.out <= 0 || module.in <= 0) {
      refuse("a weight of shape " + ShapeString(std::vector{module.out, module.in}));
    }
    const int64_t group = scheme.group_size;
    if (group != QuantScheme::kPerChannel && group <= 0) {
      refuse("a group size of " + std::to_string(group));
    }
    if (module.in % scheme.GroupSizeFor(module.in) != 0) {
      refuse("its " + std::to_string(module.in) + " inputs are no multiple of the group size " +
             std::to_string(group) +
             "; use a smaller group, one scale per channel, or leave this "
             "layer dense");
    }
    if (!IsDenseFloat(scheme.scale_dtype)) {
      refuse("scales of type " + std::string(NameOf(scheme.scale_dtype)));
    }
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const QuantScheme& scheme = module.scheme;
    const int64_t groups = scheme.GroupsFor(module.in);
    std::vector<TensorDeclaration> tensors = {
        quantmill::Declare(module.name + ".weight_packed", DType::kI32,
                           {module.out, WordsPerRow(module.in, scheme.bits)}),
        quantmill::Declare(module.name + ".weight_scale", scheme.scale_dtype, {module.out, groups}),
        quantmill::Declare(module.name + ".weight_shape", DType::kI64, {2})};
    // Never for a symmetric scheme: vLLM cannot load such a file.
    if (!scheme.symmetric) {
      tensors.push_back(quantmill::Declare(module.name + ".weight_zero_point", DType::kI32,
                                           {WordsPerRow(module.out, scheme.bits), groups}));
    }
    return tensors;
  }

  void Write(const std::string& module, const QuantizedLinear& linear,
             CheckpointWriter& writer) const override {
    CheckConsistent(linear);
    const QuantScheme& scheme = linear.scheme;
    std::vector<uint32_t> words(
        static_cast<size_t>(linear.out * WordsPerRow(linear.in, scheme.bits)));
    PackCodes(linear.codes, linear.out, linear.in, scheme.bits, words);
    writer.Write(module + ".weight_packed", AsBytes(words));
    writer.Write(module + ".weight_scale", EncodeScales(linear.scales, scheme.scale_dtype));
    const std::vector<int64_t> shape = {linear.out, linear.in};
    writer.Write(module + ".weight_shape", AsBytes(shape));
    if (!scheme.symmetric) {
      writer.Write(module + ".weight_zero_point", AsBytes(PackZeroPoints(linear)));
    }
  }

  nlohmann::json QuantizationConfig(std::span<const QuantizedModule> modules,
                                    std::span<const std::string> dense) const override {
    return MakeCompressedTensorsConfig(modules, dense);
  }
};

}  // namespace

const ArtifactWriterFormat& CompressedTensorsFormat() {
  static const Format format;
  return format;
}

}  // namespace quantmill
