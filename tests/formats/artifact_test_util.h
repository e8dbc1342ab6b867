// Artifacts made by our own writer, for tests that read, break and check them.
#ifndef QUANTMILL_TESTS_FORMATS_ARTIFACT_TEST_UTIL_H_
#define QUANTMILL_TESTS_FORMATS_ARTIFACT_TEST_UTIL_H_

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "formats/artifact.h"
#include "tests/formats/format_test_util.h"
#include "tests/support/random.h"

namespace quantmill::test {

// Scales are of either sign where the scheme has a use for it.
inline QuantizedLinear RandomLinear(const QuantScheme& scheme, int64_t out, int64_t in,
                                    Random& random) {
  QuantizedLinear linear;
  linear.scheme = scheme;
  linear.out = out;
  linear.in = in;
  const auto code = [&] {
    if (scheme.code_type == CodeType::kFp4) return static_cast<int8_t>(random.Int(0, 15));
    const auto any = static_cast<int8_t>(random.Int(scheme.min_code(), scheme.max_code()));
    const bool nan = scheme.code_type == CodeType::kFp8 && (any & 0x7F) == 0x7F;
    return nan ? int8_t{1} : any;
  };
  linear.codes.resize(static_cast<size_t>(out * in));
  for (int8_t& c : linear.codes) c = code();
  linear.scales.resize(static_cast<size_t>(out * linear.groups()));
  const bool either_sign = scheme.code_type == CodeType::kInt && scheme.symmetric;
  for (float& scale : linear.scales) {
    const double sign = either_sign && random.Int(0, 1) == 1 ? -1 : 1;
    scale = RoundTo(scheme.scale_dtype, static_cast<float>(random.Uniform(0.01, 2)));
    scale *= static_cast<float>(sign);
  }
  const int64_t block = scheme.RowBlockFor(out);
  for (int64_t row = 0; row < out; ++row) {
    std::copy_n(linear.scales.begin() + row / block * block * linear.groups(), linear.groups(),
                linear.scales.begin() + row * linear.groups());
  }
  if (scheme.has_global_scale()) linear.global_scale = 173.5f;
  if (scheme.input.has_stored_scale()) {
    linear.input_scale = 0.0123f;
    if (!scheme.input.symmetric) linear.input_zero_point = -17;
  }
  if (!scheme.symmetric) {
    linear.zero_points.resize(linear.scales.size());
    for (int8_t& zero : linear.zero_points) zero = code();
  }
  return linear;
}

using NamedLinears = std::vector<std::pair<std::string, QuantizedLinear>>;

inline std::vector<QuantizedModule> ModulesOf(const NamedLinears& linears) {
  std::vector<QuantizedModule> modules;
  for (const auto& [name, linear] : linears) {
    modules.push_back({name, linear.scheme, linear.out, linear.in});
  }
  return modules;
}

// The FP8 cache of an artifact, with the scales of each attention module.
struct TestCache {
  KvScheme scheme = {};
  int64_t kv_heads = 1;
  std::vector<std::pair<std::string, KvScales>> scales = {};
};

// A folder with these modules, and a dense norm and embedding.
inline void WriteArtifact(const std::filesystem::path& path, const NamedLinears& linears,
                          const ArtifactWriterFormat& format, const TestCache& cache = {}) {
  const std::vector<QuantizedModule> modules = ModulesOf(linears);
  std::vector<TensorDeclaration> tensors = {
      Declare("model.norm.weight", DType::kF16, {4}),
      Declare("model.embed_tokens.weight", DType::kF16, {2, 2})};
  for (const QuantizedModule& module : modules) {
    format.CheckSupported(module);
    for (TensorDeclaration& tensor : format.Declare(module)) tensors.push_back(std::move(tensor));
  }
  for (const auto& [attention, scales] : cache.scales) {
    for (TensorDeclaration& tensor : format.DeclareKv(attention, cache.scheme, cache.kv_heads)) {
      tensors.push_back(std::move(tensor));
    }
  }
  OutputFolder folder(path, true);
  CheckpointWriter writer(folder, tensors);
  const std::vector<F16> ones(4, ToF16(1));
  const std::vector<F16> values = {ToF16(1), ToF16(2), ToF16(3), ToF16(4)};
  writer.Write("model.norm.weight", std::as_bytes(std::span(ones)));
  writer.Write("model.embed_tokens.weight", std::as_bytes(std::span(values)));
  for (const auto& [name, linear] : linears) format.Write(name, linear, writer);
  for (const auto& [attention, scales] : cache.scales) format.WriteKv(attention, scales, writer);
  writer.Finish();
  const nlohmann::json config = {
      {"model_type", "llama"},
      {"quantization_config", format.QuantizationConfig(modules, {}, cache.scheme)}};
  folder.WriteText("config.json", config.dump(2) + "\n");
  folder.Commit();
}

// Changes one tensor of path/model.safetensors, or removes it (no new data), or adds it.
struct TensorEdit {
  std::string name;
  std::string dtype = {};
  std::vector<int64_t> shape = {};
  std::string data = {};
  bool remove = false;
};

inline void EditTensors(const std::filesystem::path& path, const std::vector<TensorEdit>& edits) {
  const std::filesystem::path file = path / "model.safetensors";
  std::map<std::string, std::pair<TensorDeclaration, std::string>> tensors;
  {
    const SafetensorsFile old = SafetensorsFile::Open(file);
    for (const TensorInfo& info : old.tensors()) {
      const auto bytes = old.Bytes(info);
      tensors[info.name] = {{info.name, info.dtype, info.shape},
                            {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
    }
  }
  for (const TensorEdit& edit : edits) {
    tensors.erase(edit.name);
    if (!edit.remove) tensors[edit.name] = {{edit.name, edit.dtype, edit.shape}, edit.data};
  }
  std::vector<TensorDeclaration> declared;
  declared.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) declared.push_back(tensor.first);
  std::filesystem::remove(file);
  SafetensorsWriter writer(file, declared);
  for (const auto& [name, tensor] : tensors) writer.Write(name, AsBytes(tensor.second));
  writer.Finish();
}

inline void ExpectSameLinear(const QuantizedLinear& got, const QuantizedLinear& want) {
  EXPECT_EQ(got.scheme, want.scheme);
  EXPECT_EQ(got.out, want.out);
  EXPECT_EQ(got.in, want.in);
  EXPECT_EQ(got.codes, want.codes);
  EXPECT_EQ(got.scales, want.scales);
  EXPECT_EQ(got.zero_points, want.zero_points);
  EXPECT_EQ(got.global_scale, want.global_scale);
  EXPECT_EQ(got.input_scale, want.input_scale);
  EXPECT_EQ(got.input_zero_point, want.input_zero_point);
}

// Rows [range.begin, range.end) of a layer, as ReadRows gives them.
inline QuantizedLinear RowsOf(const QuantizedLinear& linear, RowRange range) {
  QuantizedLinear rows = linear;
  rows.out = range.count();
  const auto cut = [&](auto& values, int64_t per_row) {
    const auto begin = values.begin();
    if (!values.empty()) values = {begin + range.begin * per_row, begin + range.end * per_row};
  };
  cut(rows.codes, linear.in);
  cut(rows.scales, linear.groups());
  cut(rows.zero_points, linear.groups());
  return rows;
}

// Every run of one and of two units of rows is what Read says of these rows, into memory that
// other rows have left.
inline void ExpectRowsAsRead(const ArtifactReader& reader, const std::string& name) {
  const QuantizedModule module = reader.Describe(name);
  const QuantizedLinear all = reader.Read(name);
  const int64_t unit = RowUnit(module.scheme);
  QuantizedLinear rows;
  for (const int64_t size : {unit, 2 * unit}) {
    for (int64_t begin = 0; begin < module.out; begin += unit) {
      const RowRange range = {begin, std::min(module.out, begin + size)};
      SCOPED_TRACE(name + " from row " + std::to_string(begin));
      reader.ReadRows(module, range, rows);
      ExpectSameLinear(rows, RowsOf(all, range));
    }
  }
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_FORMATS_ARTIFACT_TEST_UTIL_H_
