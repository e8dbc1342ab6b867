// GGUF files of tiny models, written by hand.
#ifndef QUANTMILL_TESTS_QUANT_MODEL_TINY_GGUF_H_
#define QUANTMILL_TESTS_QUANT_MODEL_TINY_GGUF_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf/codec.h"
#include "quant/model/families.h"
#include "quant/model/gguf_layout.h"
#include "quant/model/model_source.h"
#include "tests/formats/format_test_util.h"
#include "tests/support/random.h"

namespace quantmill::test {

using nlohmann::json;

inline constexpr int64_t kVocab = 10;

inline json TinyConfig(const std::string& architecture) {
  return {{"architectures", {architecture}}, {"hidden_size", 32},        {"intermediate_size", 64},
          {"num_hidden_layers", 2},          {"num_attention_heads", 4}, {"vocab_size", kVocab},
          {"num_key_value_heads", 2},        {"rms_norm_eps", 1e-5},     {"head_dim", 8},
          {"max_position_embeddings", 128},  {"hidden_act", "silu"},     {"rope_theta", 10000.0}};
}

// A file that tests change before it is written. Element i of the checkpoint's tensor t is a value
// of its own, so that a row in the wrong place is seen.
struct TinyGguf {
  explicit TinyGguf(const json& config) {
    const GgufLayout layout =
        DescribeGguf(DescribeDecoder(config, "config"), ConfigReader(config, "config"));
    metadata = {{"general.architecture", layout.architecture}};
    metadata.insert(metadata.end(), layout.metadata.begin(), layout.metadata.end());
    Random random(1);
    for (const GgufMatrix& matrix : layout.matrices) {
      const LinearSpec& linear = matrix.linear;
      if (matrix.expert == 0) tensors.push_back({matrix.name, GgmlType::kF16, matrix.shape()});
      std::vector<float>& rows = values[matrix.name];  // of all experts
      std::vector<float> checkpoint(static_cast<size_t>(linear.out * linear.in));
      for (float& value : checkpoint)
        value = RoundTo(DType::kF16, static_cast<float>(random.Uniform(-1, 1)));
      for (int64_t row = 0; row < linear.out; ++row) {
        const auto at = matrix.order.SourceOf(row, linear.out) * linear.in;
        rows.insert(rows.end(), checkpoint.begin() + at, checkpoint.begin() + at + linear.in);
      }
      if (linear.transposed) checkpoint = Transpose(checkpoint, linear.in);
      wanted[matrix.role == GgufRole::kEmbedding ? linear.name : linear.name + ".weight"] =
          checkpoint;
    }
    for (const GgufFloats& floats : layout.floats) {
      tensors.push_back({floats.name, GgmlType::kF32, floats.stored_shape()});
      const auto size = static_cast<int64_t>(tensors.back().bytes() / sizeof(float));
      std::vector<float> checkpoint(static_cast<size_t>(size));
      for (float& value : checkpoint)
        value = RoundTo(DType::kF16, static_cast<float>(random.Uniform(-1, 1)));
      for (int64_t i = 0; i < size; ++i) {
        values[floats.name].push_back(
            checkpoint[static_cast<size_t>(floats.order.SourceOf(i, size))] + floats.added);
      }
      wanted[floats.source] = checkpoint;
    }
    for (const GgufTable& table : layout.tables) {
      tensors.push_back({table.name, GgmlType::kF32, {std::ssize(table.values)}});
      values[table.name] = table.values;
    }
  }

  static std::vector<float> Transpose(const std::vector<float>& rows, int64_t cols) {
    const auto width = static_cast<size_t>(cols);
    std::vector<float> result;
    for (size_t col = 0; col < width; ++col) {
      for (size_t at = col; at < rows.size(); at += width) result.push_back(rows[at]);
    }
    return result;
  }

  void Set(const std::string& key, GgufValue value) {
    Remove(key);
    metadata.push_back({key, std::move(value)});
  }
  void Remove(const std::string& key) {
    std::erase_if(metadata, [&](const GgufEntry& entry) { return entry.key == key; });
  }
  GgufDeclaration& Tensor(const std::string& name) {
    return *std::ranges::find(tensors, name, &GgufDeclaration::name);
  }

  std::string Write(const std::filesystem::path& path) const {
    GgufWriter writer(path, metadata, tensors);
    for (const GgufDeclaration& tensor : tensors) {
      std::vector<std::byte> bytes(tensor.bytes());
      const auto found = values.find(tensor.name);
      if (found != values.end()) {
        std::vector<float> padded = found->second;
        const auto size = std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1},
                                          std::multiplies<>());
        padded.resize(static_cast<size_t>(size));
        EncodeRow(tensor.type, padded, {}, bytes);
      }
      const auto damage = damaged.find(tensor.name);
      if (damage != damaged.end())
        std::copy_n(damage->second.begin(), damage->second.size(), bytes.begin());
      writer.Write(tensor.name, bytes);
    }
    writer.Finish();
    return path.string();
  }

  std::vector<GgufEntry> metadata;
  std::vector<GgufDeclaration> tensors;
  std::map<std::string, std::vector<float>> values;       // in the order of the file
  std::map<std::string, std::vector<std::byte>> damaged;  // first bytes of a tensor
  std::map<std::string, std::vector<float>> wanted;       // the checkpoint's tensors
};

class GgufModelTest : public testing::Test {
 protected:
  std::string Write(const TinyGguf& tiny) {
    return tiny.Write(folder_ / ("m" + std::to_string(count_++) + ".gguf"));
  }
  void ExpectRefused(const TinyGguf& tiny, std::vector<std::string> parts) {
    const std::string path = Write(tiny);
    parts.push_back(path);
    ExpectError(ErrorCode::kBadInput, parts, [&] { ModelSource::Open(path); });
  }

  TempFolder folder_;
  int count_ = 0;
};

inline std::vector<float> Values(const ModelSource& source, const std::string& name) {
  const ConstMatrix view = source.checkpoint().View(name);
  std::vector<float> values(static_cast<size_t>(view.size()));
  for (int64_t row = 0; row < view.rows; ++row)
    WidenRow(view, row, &values[static_cast<size_t>(row * view.cols)]);
  source.checkpoint().Release(name);
  return values;
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_MODEL_TINY_GGUF_H_
