#include "quant/pipeline/gguf_types.h"

#include <algorithm>
#include <array>
#include <map>

#include "formats/gguf/repack.h"
#include "kernels/core/error.h"
#include "quant/pipeline/block_rows.h"

namespace quantmill {
namespace {

struct NamedType {
  const char* name;
  const char* label;
  GgmlType type;
  uint32_t file_type;  // llama.cpp's llama_ftype
};
constexpr std::array kTypes = {
    NamedType{"f16", "F16", GgmlType::kF16, 1},
    NamedType{"bf16", "BF16", GgmlType::kBf16, 32},
    NamedType{"f32", "F32", GgmlType::kF32, 0},
    NamedType{"q8_0", "Q8_0", GgmlType::kQ8_0, 7},
    NamedType{"q4_0", "Q4_0", GgmlType::kQ4_0, 2},
    NamedType{"q4_1", "Q4_1", GgmlType::kQ4_1, 3},
    NamedType{"q5_0", "Q5_0", GgmlType::kQ5_0, 8},
    NamedType{"q5_1", "Q5_1", GgmlType::kQ5_1, 9},
    NamedType{"q4_k", "Q4_K", GgmlType::kQ4K, 14},
    NamedType{"q5_k", "Q5_K", GgmlType::kQ5K, 16},
    NamedType{"q6_k", "Q6_K", GgmlType::kQ6K, 18},
    NamedType{"iq4_nl", "IQ4_NL", GgmlType::kIq4Nl, 25},
    NamedType{"mxfp4", "MXFP4", GgmlType::kMxfp4, 38},
    NamedType{"q4_k_m", "Q4_K_M", GgmlType::kQ4K, 15},
};

const NamedType& Named(std::string_view name) {
  const auto* found =
      std::ranges::find_if(kTypes, [&](const NamedType& type) { return type.name == name; });
  Check(found != kTypes.end(), "no such type for gguf");
  return *found;
}

bool IsFloat(GgmlType type) { return InfoOf(type).block_elements == 1; }

// A type whose blocks rows of `in` elements fill.
GgmlType Fitting(GgmlType type, int64_t in) {
  if (RowBytes(type, in)) return type;
  if (type == GgmlType::kQ4K) return Fitting(GgmlType::kQ5_0, in);
  if (type == GgmlType::kQ5K) return Fitting(GgmlType::kQ5_1, in);
  if (type == GgmlType::kQ6K) return Fitting(GgmlType::kQ8_0, in);
  return GgmlType::kF16;
}

// llama-quantize's choice of layers whose value and down projections get more bits.
bool GetsMoreBits(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

}  // namespace

const std::vector<std::string>& GgufTypeNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    all.reserve(kTypes.size());
    for (const NamedType& type : kTypes) all.emplace_back(type.name);
    return all;
  }();
  return names;
}

const std::vector<std::string>& GgufEmbeddingTypeNames() {
  static const std::vector<std::string> names = {"f16", "bf16", "f32", "q8_0", "q6_k"};
  return names;
}

const std::vector<std::string>& SolvedGgufTypeNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> solved;
    for (const NamedType& type : kTypes) {
      if (IsSolved(type.type)) solved.emplace_back(type.name);
    }
    return solved;
  }();
  return names;
}

GgmlType DenseGgmlType(std::string_view dtype) {
  if (dtype == "F32") return GgmlType::kF32;
  return dtype == "BF16" ? GgmlType::kBf16 : GgmlType::kF16;
}

GgufTypes ChooseGgufTypes(const GgufLayout& layout, std::string_view type,
                          std::string_view embedding_type) {
  const NamedType& base = Named(type);
  const bool mixed = type == "q4_k_m";
  const auto has_head = std::ranges::any_of(
      layout.matrices, [](const GgufMatrix& m) { return m.role == GgufRole::kHead; });
  int64_t layers = 0;
  for (const GgufMatrix& matrix : layout.matrices) layers = std::max(layers, matrix.layer + 1);
  const bool small = !IsFloat(base.type) && base.type != GgmlType::kQ8_0;
  GgufTypes chosen{{}, base.file_type, base.label, {}};
  for (const GgufMatrix& matrix : layout.matrices) {
    const bool outside = matrix.layer < 0;
    const bool head = outside && (matrix.role == GgufRole::kHead || !has_head);
    GgmlType wanted = base.type;
    if (head && small) wanted = GgmlType::kQ6K;
    if (mixed && matrix.role == GgufRole::kValueOrDown && GetsMoreBits(matrix.layer, layers)) {
      wanted = GgmlType::kQ6K;
    }
    if (mixed && matrix.role == GgufRole::kQueryKeyValue) wanted = GgmlType::kQ5K;
    if (outside && !embedding_type.empty()) wanted = Named(embedding_type).type;
    const GgmlType got = Fitting(wanted, matrix.linear.in);
    if (got != wanted) chosen.fallbacks.push_back({chosen.types.size(), wanted, got});
    chosen.types.push_back(got);
  }
  return chosen;
}

GgufTypes KeepGgufTypes(const GgufLayout& layout, const ModelSource& source,
                        std::string_view embedding_type) {
  GgufTypes chosen;
  std::map<GgmlType, int64_t> counts;
  for (const GgufMatrix& matrix : layout.matrices) {
    const bool embedding = matrix.role == GgufRole::kEmbedding;
    if (!embedding && source.SchemeOf(matrix.linear)) {
      const GgmlType type = BlockTypeFor(source.artifact()->Describe(matrix.linear.name));
      ++counts[type];
      chosen.types.push_back(type);
    } else if (matrix.layer < 0 && !embedding_type.empty()) {
      chosen.types.push_back(Fitting(Named(embedding_type).type, matrix.linear.in));
    } else {
      const std::string name = embedding ? matrix.linear.name : source.WeightName(matrix.linear);
      chosen.types.push_back(DenseGgmlType(source.checkpoint().Info(name).dtype));
    }
  }
  CheckStacks(layout, chosen.types);
  Check(!counts.empty(), "an artifact without quantized modules");
  const auto most =
      std::ranges::max_element(counts, {}, [](const auto& count) { return count.second; });
  const auto* named =
      std::ranges::find_if(kTypes, [&](const NamedType& type) { return type.type == most->first; });
  chosen.file_type = named->file_type;
  chosen.label = named->label;
  return chosen;
}

void CheckStacks(const GgufLayout& layout, const std::vector<GgmlType>& types) {
  for (size_t i = 0; i < types.size(); ++i) {
    const GgufMatrix& matrix = layout.matrices[i];
    if (matrix.expert == 0 || types[i] == types[i - 1]) continue;
    throw Error(ErrorCode::kUsage, matrix.linear.name,
                "gguf keeps all experts of a layer in tensor " + matrix.name +
                    ", of one type: this one would be " + std::string(NameOf(types[i])) +
                    ", and the one before it is " + std::string(NameOf(types[i - 1])));
  }
}

}  // namespace quantmill
