#include "formats/gguf/code_reader.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "formats/gguf/blocks.h"
#include "formats/module_tensors.h"
#include "formats/tensor_checks.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kSuffix = ".weight";

QuantScheme SchemeOfType(GgmlType type) {
  QuantScheme scheme;
  scheme.group_size = kBlock;
  if (type == GgmlType::kQ5_0) scheme.bits = 5;
  if (type == GgmlType::kQ8_0) scheme.bits = 8;
  if (type == GgmlType::kIq4Nl) scheme.code_type = CodeType::kIq4Nl;
  if (type != GgmlType::kMxfp4) return scheme;
  scheme.code_type = CodeType::kFp4;
  scheme.scale_dtype = DType::kF8E8M0;
  return scheme;
}

// Codes of one block, less its zero, and its scale.
template <typename Block>
float UnpackCodes(std::span<const std::byte> bytes, int8_t* codes) {
  Block block;
  Unpack(bytes, block);
  for (size_t j = 0; j < kBlock; ++j) {
    codes[j] = static_cast<int8_t>(block.codes[j] - Block::kZero);
  }
  return ToFloat(block.d);
}
template <>
float UnpackCodes<BlockQ8_0>(std::span<const std::byte> bytes, int8_t* codes) {
  BlockQ8_0 block;
  Unpack(bytes, block);
  std::copy_n(block.codes.begin(), kBlock, codes);
  return ToFloat(block.d);
}

template <>
float UnpackCodes<BlockIq4Nl>(std::span<const std::byte> bytes, int8_t* codes) {
  BlockIq4Nl block;
  Unpack(bytes, block);
  std::ranges::copy(block.codes, codes);
  return ToFloat(block.d);
}
// The levels are twice the numbers that codes stand for.
template <>
float UnpackCodes<BlockMxfp4>(std::span<const std::byte> bytes, int8_t* codes) {
  BlockMxfp4 block;
  Unpack(bytes, block);
  std::ranges::copy(block.codes, codes);
  return 2 * Mxfp4Scale(block.exponent);
}

float UnpackBlock(GgmlType type, std::span<const std::byte> bytes, int8_t* codes) {
  if (type == GgmlType::kQ4_0) return UnpackCodes<BlockQ4_0>(bytes, codes);
  if (type == GgmlType::kQ5_0) return UnpackCodes<BlockQ5_0>(bytes, codes);
  if (type == GgmlType::kMxfp4) return UnpackCodes<BlockMxfp4>(bytes, codes);
  if (type == GgmlType::kIq4Nl) return UnpackCodes<BlockIq4Nl>(bytes, codes);
  return UnpackCodes<BlockQ8_0>(bytes, codes);
}

class GgufCodes : public ArtifactReader {
 public:
  GgufCodes(const Checkpoint& checkpoint, const GgufTensors& tensors,
            const std::vector<std::string>& dense)
      : checkpoint_(checkpoint), tensors_(tensors) {
    for (size_t i = 0; i < tensors.tensors().size(); ++i) {
      const GgufDecoded& tensor = tensors.decoded(i);
      if (tensor.shape.size() != 2 || !tensor.name.ends_with(kSuffix)) continue;
      if (!HasCodes(tensor.place.tensor->type)) continue;
      if (std::ranges::find(dense, tensor.name) != dense.end()) continue;
      indices_[tensor.name.substr(0, tensor.name.size() - kSuffix.size())] = i;
    }
    for (const auto& [module, index] : indices_) modules_.push_back(module);
  }

  std::string_view format() const override { return "gguf"; }
  const std::vector<std::string>& modules() const override { return modules_; }

  std::optional<QuantScheme> SchemeOf(const std::string& module) const override {
    const auto found = indices_.find(module);
    if (found == indices_.end()) return std::nullopt;
    return SchemeOfType(TypeOf(found->second));
  }

  QuantizedModule Describe(const std::string& module) const override {
    const GgufDecoded& tensor = tensors_.decoded(indices_.at(module));
    const int64_t out = tensor.shape[tensor.transposed ? 1 : 0];
    return {module, *SchemeOf(module), out, tensor.shape[tensor.transposed ? 0 : 1]};
  }

  void ReadRows(const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override;

  std::vector<std::string> TensorsOf(const std::string& module) const override {
    return {module + std::string(kSuffix)};
  }

  KvScheme kv_scheme() const override { return {}; }
  KvScales ReadKv(const std::string&, int64_t) const override {
    Check(false, "ReadKv: the file quantizes no cache");
    return {};
  }
  std::vector<std::string> KvTensorsOf(const std::string&) const override { return {}; }

  std::vector<TensorProblem> CheckTensors() const override;

 private:
  GgmlType TypeOf(size_t index) const { return tensors_.decoded(index).place.tensor->type; }

  const Checkpoint& checkpoint_;
  const GgufTensors& tensors_;
  std::map<std::string, size_t> indices_;  // of tensors_, by module
  std::vector<std::string> modules_;
};

void GgufCodes::ReadRows(const QuantizedModule& module, RowRange range,
                         QuantizedLinear& rows) const {
  const size_t index = indices_.at(module.name);
  const GgmlType type = TypeOf(index);
  const auto block_bytes = static_cast<size_t>(InfoOf(type).block_bytes);
  StartRows(module, range, rows);
  rows.codes.resize(static_cast<size_t>(rows.out * rows.in));
  rows.scales.resize(static_cast<size_t>(rows.out * rows.groups()));
  int8_t* codes = rows.codes.data();
  float* scale = rows.scales.data();
  for (int64_t row = range.begin; row < range.end; ++row) {
    const std::span<const std::byte> bytes = tensors_.StoredRow(index, row);
    for (size_t at = 0; at < bytes.size(); at += block_bytes, codes += kBlock, ++scale) {
      *scale = UnpackBlock(type, bytes.subspan(at, block_bytes), codes);
      if (!std::isfinite(*scale)) {
        throw Error(ErrorCode::kBadInput, tensors_.Location(index),
                    "the scale of block " + std::to_string(at / block_bytes) + " of output " +
                        std::to_string(row) + " is NaN or infinite: the file is damaged");
      }
      if (*scale == 0 && type != GgmlType::kIq4Nl) {  // which has no code for zero
        *scale = 1;
        std::fill_n(codes, kBlock, int8_t{0});
      }
    }
  }
}

std::vector<TensorProblem> GgufCodes::CheckTensors() const {
  std::vector<TensorProblem> problems;
  for (const std::string& name : checkpoint_.names()) {
    try {
      CheckDenseTensor(checkpoint_, name, problems);
    } catch (const Error& error) {  // where it cannot be decoded
      problems.push_back({TensorProblem::Kind::kNonFinite, name, error.message()});
    }
  }
  return problems;
}

}  // namespace

bool HasCodes(GgmlType type) {
  return type == GgmlType::kQ4_0 || type == GgmlType::kQ5_0 || type == GgmlType::kQ8_0 ||
         type == GgmlType::kIq4Nl || type == GgmlType::kMxfp4;
}

std::unique_ptr<ArtifactReader> OpenGgufCodes(const Checkpoint& checkpoint,
                                              const GgufTensors& tensors,
                                              const std::vector<std::string>& dense) {
  return std::make_unique<GgufCodes>(checkpoint, tensors, dense);
}

}  // namespace quantmill
