#include "quant/pipeline/schemes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "kernels/core/error.h"
#include "quant/report/spelling.h"

namespace quantmill {
namespace {

constexpr int64_t kDefaultGroup = 128;

NamedScheme Integers(int bits, std::string summary) {
  QuantScheme scheme;
  scheme.bits = bits;
  // 8 bits are accurate enough with one scale a row, fewer are not.
  scheme.group_size = bits == 8 ? QuantScheme::kPerChannel : kDefaultGroup;
  return {fmt::format("w{}a16", bits), std::move(summary), scheme, true, true};
}

InputScheme Inputs(InputScheme::Type type, bool dynamic, bool symmetric = true) {
  InputScheme input;
  input.type = type;
  input.dynamic = dynamic;
  input.symmetric = symmetric;
  return input;
}

NamedScheme Int8Inputs(std::string name, std::string summary, bool dynamic, bool symmetric) {
  QuantScheme scheme;
  scheme.bits = 8;
  scheme.group_size = QuantScheme::kPerChannel;
  scheme.input = Inputs(InputScheme::Type::kInt8, dynamic, symmetric);
  return {std::move(name), std::move(summary), scheme, false, false};
}

// row_block, group_size: the shape that shares a scale.
NamedScheme Fp8(std::string name, std::string summary, int64_t row_block, int64_t group_size,
                bool dynamic) {
  QuantScheme scheme;
  scheme.bits = 8;
  scheme.code_type = CodeType::kFp8;
  scheme.row_block = row_block;
  scheme.group_size = group_size;
  scheme.input = Inputs(InputScheme::Type::kFp8, dynamic);
  if (group_size != QuantScheme::kPerChannel) scheme.input.group_size = group_size;
  return {std::move(name), std::move(summary), scheme, false, false};
}

NamedScheme Fp4(std::string name, std::string summary, int64_t group_size, DType scale_dtype,
                bool rounds_inputs = false) {
  QuantScheme scheme;
  scheme.bits = 4;
  scheme.code_type = CodeType::kFp4;
  scheme.group_size = group_size;
  scheme.scale_dtype = scale_dtype;
  if (rounds_inputs) {
    scheme.input = Inputs(InputScheme::Type::kFp4, true);
    scheme.input.group_size = group_size;
    scheme.input.scale_dtype = scale_dtype;
  }
  return {std::move(name), std::move(summary), scheme, false, false};
}

std::vector<NamedScheme> MakeTable() {
  constexpr int64_t kRow = QuantScheme::kPerChannel;
  return {
      Integers(2, "2-bit integers; for the layers that a budget finds harmless"),
      Integers(3, "3-bit integers"),
      Integers(4, "4-bit integers, the usual choice"),
      Integers(5, "5-bit integers"),
      Integers(6, "6-bit integers"),
      Integers(8, "8-bit integers, one scale per output channel"),
      Int8Inputs("w8a8", "int8 weights and inputs, inputs scaled per token", true, true),
      Int8Inputs("w8a8-static", "the same with one calibrated input scale per layer", false, true),
      Int8Inputs("w8a8-static-asym", "the same with a zero point of the inputs", false, false),
      Fp8("fp8", "E4M3 weights per channel, inputs per token", 1, kRow, true),
      Fp8("fp8-tensor", "E4M3 weights per tensor, inputs per token", QuantScheme::kAllRows, kRow,
          true),
      Fp8("fp8-static", "E4M3 weights per tensor, calibrated input scales", QuantScheme::kAllRows,
          kRow, false),
      Fp8("fp8-block", "E4M3 weights in 128x128 blocks, inputs per 128", 128, 128, true),
      Fp4("mxfp4", "E2M1 weights, a power of two per 32", 32, DType::kF8E8M0),
      Fp4("nvfp4", "E2M1 weights, an E4M3 scale per 16", 16, DType::kF8E4M3),
      Fp4("nvfp4a4", "the same of weights and inputs, for Blackwell", 16, DType::kF8E4M3, true),
  };
}

const NamedScheme* Find(const std::string& name) {
  for (const NamedScheme& named : Schemes()) {
    if (named.name == name) return &named;
  }
  return nullptr;
}

// "w2a16, w3a16, ...": those whose `option` may be chosen.
std::string NamesWith(bool NamedScheme::*option) {
  std::string names;
  for (const NamedScheme& named : Schemes()) {
    if (named.*option) names += (names.empty() ? "" : ", ") + named.name;
  }
  return names;
}

std::string GroupText(int64_t group_size) {
  return group_size == QuantScheme::kPerChannel ? "channel" : fmt::format("g{}", group_size);
}

}  // namespace

std::span<const NamedScheme> Schemes() {
  static const std::vector<NamedScheme> table = MakeTable();
  return table;
}

std::vector<std::string> SchemeNames() {
  std::vector<std::string> names;
  for (const NamedScheme& named : Schemes()) names.push_back(named.name);
  return names;
}

const NamedScheme& SchemeNamed(const std::string& name) {
  const NamedScheme* named = Find(name);
  Check(named != nullptr, "SchemeNamed: an unknown name");
  return *named;
}

int64_t ParseGroupSize(const std::string& text, const std::string& where) {
  if (text == "channel" || text == "-1") return QuantScheme::kPerChannel;
  const char* begin = text.data() + (text.starts_with("g") ? 1 : 0);
  const char* const end = text.data() + text.size();
  int64_t size = 0;
  const auto [rest, error] = std::from_chars(begin, end, size);
  if (error != std::errc() || rest != end || size < 1 || size > 1'000'000) {
    throw Error(
        ErrorCode::kUsage, where,
        "'" + text + "' is neither a number of inputs such as 32, 64 or 128, nor 'channel'");
  }
  return size;
}

SchemeChoice ParseScheme(const std::string& text, const std::string& where) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(':', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  SchemeChoice choice{parts[0], {}, {}};
  if (Find(choice.name) == nullptr) {
    const std::vector<std::string> names = SchemeNames();
    throw Error(ErrorCode::kUsage, where,
                fmt::format("'{}' is not one of: {}{}", choice.name, fmt::join(names, ", "),
                            Suggestion(choice.name, names)));
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    const bool is_symmetry = part == "asym" || part == "sym";
    const bool is_group = part == "channel" || (part.starts_with("g") && part.size() > 1);
    if (is_symmetry && !choice.symmetric) {
      choice.symmetric = part == "sym";
    } else if (is_group && !choice.group_size) {
      choice.group_size = ParseGroupSize(part, where);
    } else {
      throw Error(ErrorCode::kUsage, where,
                  fmt::format("'{}' in '{}': a scheme is NAME[:gN|:channel][:asym|:sym], such as "
                              "w4a16:g64:asym",
                              part, text));
    }
  }
  return choice;
}

QuantScheme MakeScheme(const SchemeChoice& choice, const std::string& where) {
  const NamedScheme& named = SchemeNamed(choice.name);
  QuantScheme scheme = named.scheme;
  if (choice.group_size) {
    if (!named.takes_groups && *choice.group_size != scheme.group_size) {
      throw Error(ErrorCode::kUsage, where,
                  fmt::format("{} has no choice of groups ({}); it fits {}", named.name,
                              Describe(scheme), NamesWith(&NamedScheme::takes_groups)));
    }
    scheme.group_size = *choice.group_size;
  }
  if (choice.symmetric && !*choice.symmetric) {
    if (!named.takes_zero_points) {
      throw Error(ErrorCode::kUsage, where,
                  fmt::format("{} has no zero points of weights; they fit {}", named.name,
                              NamesWith(&NamedScheme::takes_zero_points)));
    }
    scheme.symmetric = false;
  }
  return scheme;
}

std::string SchemeText(const QuantScheme& scheme) {
  for (const NamedScheme& named : Schemes()) {
    QuantScheme same = named.scheme;
    same.scale_dtype =
        named.scheme.code_type == CodeType::kFp4 ? same.scale_dtype : scheme.scale_dtype;
    if (named.takes_groups) same.group_size = scheme.group_size;
    if (named.takes_zero_points) same.symmetric = scheme.symmetric;
    if (!(same == scheme)) continue;
    std::string text = named.name;
    if (named.takes_groups) text += ":" + GroupText(scheme.group_size);
    if (!scheme.symmetric) text += ":asym";
    return text;
  }
  Check(false, "SchemeText: a scheme without a name");
  return {};
}

// The dense type for integers and FP8 alike, although vLLM keeps these scales in F32: it is what
// compressed-tensors itself writes, and what its loader allocates. A loader that casts F32 scales
// to that type would run other weights than those that were solved for; widening loses nothing.
DType ScaleTypeFor(const QuantScheme& scheme, const ArtifactWriterFormat& format, DType dense) {
  if (scheme.code_type == CodeType::kFp4) return scheme.scale_dtype;
  if (format.scale_type()) return *format.scale_type();
  return dense == DType::kBF16 ? DType::kBF16 : DType::kF16;
}

}  // namespace quantmill
