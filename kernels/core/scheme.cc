#include "kernels/core/scheme.h"

#include <algorithm>
#include <array>

namespace quantmill {
namespace {

std::string TypeName(const QuantScheme& scheme) {
  switch (scheme.code_type) {
    case CodeType::kInt:
      return "w" + std::to_string(scheme.bits);
    case CodeType::kFp8:
      return scheme.scale_dtype == DType::kF8E8M0 ? "mxfp8" : "fp8";
    case CodeType::kFp4:
      return scheme.has_global_scale() ? "nvfp4" : "mxfp4";
    case CodeType::kIq4Nl:
      return "iq4_nl";
  }
  return "?";
}

std::string InputText(const InputScheme& input) {
  const std::string numbers = input.type == InputScheme::Type::kInt8  ? "int8"
                              : input.type == InputScheme::Type::kFp8 ? "fp8"
                                                                      : "fp4";
  const std::string family = !input.has_block_scales()  ? ""
                             : input.has_global_scale() ? "nv"
                                                        : "mx";
  std::string text = "inputs " + family + numbers;
  if (!input.dynamic) return text + (input.symmetric ? " static" : " static asymmetric");
  return text + (input.group_size == InputScheme::kPerToken
                     ? " per token"
                     : " per " + std::to_string(input.group_size));
}

}  // namespace

float QuantScheme::half_range() const {
  switch (code_type) {
    case CodeType::kInt:
      return static_cast<float>(max_code() - min_code()) / 2;
    case CodeType::kFp8:
      return 448;
    case CodeType::kFp4:
      return 6;
    case CodeType::kIq4Nl:
      return static_cast<float>(kIq4NlLevels.back() - kIq4NlLevels.front()) / 2;
  }
  return 1;
}

double QuantScheme::BitsPerWeight(int64_t out, int64_t in) const {
  const auto weights = static_cast<double>(out * in);
  if (weights == 0) return 0;
  const int64_t blocks = (out + RowBlockFor(out) - 1) / RowBlockFor(out);
  const auto grids = static_cast<double>(blocks * GroupsFor(in));
  double bits_of_grids = grids * static_cast<double>(SizeOf(scale_dtype) * 8);
  if (!symmetric) bits_of_grids += grids * bits;
  if (has_global_scale()) bits_of_grids += 32;
  return bits + bits_of_grids / weights;
}

std::string Describe(const QuantScheme& scheme) {
  std::string text = TypeName(scheme);
  if (scheme.code_type == CodeType::kInt) {
    text += scheme.input.type == InputScheme::Type::kNone ? "a16" : "a8";
  }
  if (scheme.row_block == QuantScheme::kAllRows) {
    text += " per tensor";
  } else if (scheme.row_block > 1) {
    text += " blocks " + std::to_string(scheme.row_block) + "x" + std::to_string(scheme.group_size);
  } else if (scheme.group_size == QuantScheme::kPerChannel) {
    text += " per channel";
  } else {
    text += " g" + std::to_string(scheme.group_size);
  }
  if (scheme.code_type == CodeType::kInt) text += scheme.symmetric ? " symmetric" : " asymmetric";
  if (scheme.input.type != InputScheme::Type::kNone) text += ", " + InputText(scheme.input);
  return text;
}

float NumberOf(CodeType type, int8_t code) {
  const auto bits = static_cast<uint8_t>(code);
  switch (type) {
    case CodeType::kInt:
      return code;
    case CodeType::kFp8:
      return FromE4M3(bits);
    case CodeType::kFp4:
      return FromE2M1(bits);
    case CodeType::kIq4Nl:
      return FromIq4Nl(bits);
  }
  return 0;
}

int8_t NearestCode(CodeType type, float x) {
  Check(type != CodeType::kInt, "NearestCode: integers have zero points");
  if (type == CodeType::kIq4Nl) return static_cast<int8_t>(ToIq4Nl(x));
  return static_cast<int8_t>(type == CodeType::kFp8 ? ToE4M3(x) : ToE2M1(x));
}

void CheckConsistent(const QuantizedLinear& linear) {
  const auto groups = static_cast<size_t>(linear.out * linear.groups());
  Check(linear.codes.size() == static_cast<size_t>(linear.out * linear.in),
        "QuantizedLinear: codes are not [out, in]");
  Check(linear.scales.size() == groups, "QuantizedLinear: scales are not [out, groups]");
  Check(linear.zero_points.size() == (linear.scheme.symmetric ? 0 : groups),
        "QuantizedLinear: zero points are not [out, groups], or present though symmetric");
  Check(linear.scheme.symmetric || linear.scheme.code_type == CodeType::kInt,
        "QuantizedLinear: integers alone have zero points");
}

void CheckGrid(ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
               ConstMatrix zero_points) {
  const int64_t groups = scheme.GroupsFor(weight.cols);
  Check(scheme.bits >= 2 && scheme.bits <= 8, "QuantScheme: bits are 2..8");
  Check(scheme.group_size > 0 || scheme.group_size == QuantScheme::kPerChannel,
        "QuantScheme: group_size is positive or kPerChannel");
  Check(weight.dtype == DType::kF32, "weight is [out, in] F32");
  Check(scales.dtype == DType::kF32 && scales.rows == weight.rows && scales.cols == groups,
        "scales are [out, groups] F32");
  if (scheme.symmetric) {
    Check(zero_points.size() == 0, "a symmetric scheme has no zero points");
  } else {
    Check(scheme.code_type == CodeType::kInt, "integers alone have zero points");
    Check(zero_points.dtype == DType::kI8 && zero_points.rows == weight.rows &&
              zero_points.cols == groups,
          "zero points are [out, groups] I8");
  }
}

namespace {

using NumberTable = std::array<float, 256>;

NumberTable MakeNumbers(CodeType type) {
  NumberTable numbers{};
  for (int code = 0; code < 256; ++code) {
    numbers[static_cast<size_t>(code)] = NumberOf(type, static_cast<int8_t>(code));
  }
  return numbers;
}

// to[i] = number(codes[i]) * scale.
void DequantizeNumbers(CodeType type, const int8_t* codes, int64_t count, float scale, float* to) {
  static const std::array<NumberTable, 4> kTables = {
      MakeNumbers(CodeType::kInt), MakeNumbers(CodeType::kFp8), MakeNumbers(CodeType::kFp4),
      MakeNumbers(CodeType::kIq4Nl)};
  const NumberTable& numbers = kTables[static_cast<size_t>(type)];
  for (int64_t i = 0; i < count; ++i) to[i] = numbers[static_cast<uint8_t>(codes[i])] * scale;
}

}  // namespace

void DequantizeRow(const QuantizedLinear& linear, int64_t row, float* to) {
  const int64_t groups = linear.groups();
  const int64_t group_size = linear.scheme.GroupSizeFor(linear.in);
  const int8_t* codes = linear.codes.data() + row * linear.in;
  const CodeType type = linear.scheme.code_type;
  for (int64_t g = 0; g < groups; ++g) {
    const float scale = linear.EffectiveScale(row, g);
    const int64_t begin = g * group_size;
    const int64_t end = std::min(linear.in, begin + group_size);
    if (type != CodeType::kInt) {
      DequantizeNumbers(type, codes + begin, end - begin, scale, to + begin);
      continue;
    }
    const int zero =
        linear.scheme.symmetric ? 0 : linear.zero_points[static_cast<size_t>(row * groups + g)];
    for (int64_t i = begin; i < end; ++i) to[i] = static_cast<float>(codes[i] - zero) * scale;
  }
}

void Dequantize(const QuantizedLinear& linear, Matrix weight) {
  CheckConsistent(linear);
  Check(weight.rows == linear.out && weight.cols == linear.in, "Dequantize: weight is [out, in]");
  for (int64_t o = 0; o < linear.out; ++o) DequantizeRow(linear, o, weight.Row<float>(o));
}

}  // namespace quantmill
