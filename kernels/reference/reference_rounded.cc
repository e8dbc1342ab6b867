#include "kernels/reference/reference_rounded.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace quantmill::reference {
namespace {

float ValueAt(ConstMatrix x, int64_t t, int64_t i) {
  return x.dtype == DType::kBF16 ? ToFloat(x.Row<BF16>(t)[i]) : x.Row<float>(t)[i];
}

// One token as it is multiplied: code - zero, or E4M3 numbers, and the scale of each input.
struct RoundedToken {
  std::vector<double> numbers;
  std::vector<float> scales;
};

float AbsMax(ConstMatrix x, int64_t t, int64_t begin, int64_t end) {
  float max = 0;
  for (int64_t i = begin; i < end; ++i) {
    const float magnitude = std::fabs(ValueAt(x, t, i));
    if (std::isnan(magnitude)) return magnitude;
    max = std::max(max, magnitude);
  }
  return max;
}

double RoundInteger(float scaled, int zero) {
  if (std::isnan(scaled)) return 0;  // its scale is NaN
  const double code = std::nearbyint(double{scaled}) + zero;
  return std::clamp(code, -128.0, 127.0) - zero;
}

void RoundGroup(ConstMatrix x, int64_t t, int64_t begin, int64_t end, const QuantizedLinear& linear,
                RoundedToken& token) {
  const InputScheme& input = linear.scheme.input;
  const float absmax = AbsMax(x, t, begin, end);
  const bool integers = input.type == InputScheme::Type::kInt8;
  float scale = linear.input_scale;
  if (input.dynamic) {
    scale = integers ? absmax / 127.0f : absmax / 448.0f;
    if (!integers && scale < 1.0f / (448.0f * 512.0f)) scale = 1.0f / (448.0f * 512.0f);
  }
  if (std::isnan(absmax)) scale = std::numeric_limits<float>::quiet_NaN();
  const float factor = absmax > 0 ? 127.0f / absmax : 0.0f;
  const int zero = input.symmetric ? 0 : linear.input_zero_point;
  for (int64_t i = begin; i < end; ++i) {
    const float value = ValueAt(x, t, i);
    const auto at = static_cast<size_t>(i);
    token.scales[at] = scale;
    if (!integers) {
      token.numbers[at] = FromE4M3(ToE4M3(value / scale));
    } else {
      token.numbers[at] = RoundInteger(input.dynamic ? value * factor : value / scale, zero);
    }
  }
}

RoundedToken RoundToken(ConstMatrix x, int64_t t, const QuantizedLinear& linear) {
  const auto in = static_cast<size_t>(linear.in);
  RoundedToken token{std::vector<double>(in), std::vector<float>(in)};
  const int64_t wanted = linear.scheme.input.group_size;
  const int64_t group = wanted == InputScheme::kPerToken ? std::max<int64_t>(1, linear.in) : wanted;
  for (int64_t begin = 0; begin < linear.in; begin += group) {
    RoundGroup(x, t, begin, std::min(linear.in, begin + group), linear, token);
  }
  return token;
}

double NumberAt(const QuantizedLinear& linear, int64_t o, int64_t i) {
  const int8_t code = linear.codes[static_cast<size_t>(o * linear.in + i)];
  if (linear.scheme.code_type != CodeType::kInt) return NumberOf(linear.scheme.code_type, code);
  if (linear.scheme.symmetric) return code;
  const int64_t group = i / linear.scheme.GroupSizeFor(linear.in);
  return code - linear.zero_points[static_cast<size_t>(o * linear.groups() + group)];
}

// The sums of segments are exact for integers; F32 arithmetic follows as ops.h says.
float Dot(const RoundedToken& token, const QuantizedLinear& linear, int64_t o) {
  const int64_t weight_group = linear.scheme.GroupSizeFor(linear.in);
  const int64_t wanted = linear.scheme.input.group_size;
  const int64_t input_group = wanted == InputScheme::kPerToken ? linear.in : wanted;
  const int64_t segment = std::min(weight_group, input_group);
  float total = 0;
  for (int64_t begin = 0; begin < linear.in; begin += segment) {
    double sum = 0;
    for (int64_t i = begin; i < std::min(linear.in, begin + segment); ++i) {
      sum += token.numbers[static_cast<size_t>(i)] * NumberAt(linear, o, i);
    }
    const float scaled = static_cast<float>(sum) * linear.EffectiveScale(o, begin / weight_group) *
                         token.scales[static_cast<size_t>(begin)];
    total = begin == 0 ? scaled : total + scaled;
  }
  return total;
}

// A power of two for groups of powers; 0 for a group of zeros (or nearly so) otherwise.
float BlockScale(float absmax, const BlockRounding& rounding) {
  if (!rounding.powers) {
    return FromE4M3(ToE4M3(rounding.global_scale * (absmax / 6))) / rounding.global_scale;
  }
  if (absmax == 0) return 0x1p-126f;
  int exponent = 0;
  const float fraction = std::frexp(absmax, &exponent);  // in [0.5, 1)
  if (fraction < 0.875f) --exponent;
  return std::ldexp(1.0f, std::max(exponent - (rounding.fp4 ? 2 : 8), -126));
}

void RoundBlock(ConstMatrix x, int64_t t, int64_t begin, int64_t end, const BlockRounding& rounding,
                Matrix out) {
  const CodeType numbers = rounding.fp4 ? CodeType::kFp4 : CodeType::kFp8;
  const float absmax = AbsMax(x, t, begin, end);
  const float scale = BlockScale(absmax, rounding);
  for (int64_t i = begin; i < end; ++i) {
    float value = std::numeric_limits<float>::quiet_NaN();
    if (std::isfinite(absmax)) {
      const float quotient = scale == 0 ? 0 : ValueAt(x, t, i) / scale;
      value = NumberOf(numbers, NearestCode(numbers, quotient)) * scale;
    }
    if (out.dtype == DType::kBF16) {
      out.Row<BF16>(t)[i] = ToBF16(value);
    } else {
      out.Row<float>(t)[i] = value;
    }
  }
}

}  // namespace

Tensor RoundedToBlocks(ConstMatrix x, const BlockRounding& rounding) {
  Tensor rounded = HostTensor(x.dtype, x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t begin = 0; begin < x.cols; begin += rounding.group_size) {
      RoundBlock(x, t, begin, std::min(x.cols, begin + rounding.group_size), rounding, rounded);
    }
  }
  return rounded;
}

Tensor RoundedProduct(ConstMatrix x, const QuantizedLinear& linear) {
  Tensor product = HostTensor(DType::kF32, x.rows, linear.out);
  for (int64_t t = 0; t < x.rows; ++t) {
    const RoundedToken token = RoundToken(x, t, linear);
    for (int64_t o = 0; o < linear.out; ++o) product.Row<float>(t)[o] = Dot(token, linear, o);
  }
  return product;
}

}  // namespace quantmill::reference
