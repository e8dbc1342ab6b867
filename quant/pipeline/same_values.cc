#include "quant/pipeline/same_values.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace quantmill {
namespace {

int8_t ZeroPoint(const QuantizedLinear& linear, size_t group) {
  return linear.scheme.symmetric ? int8_t{0} : linear.zero_points[group];
}

// Whether a[i] - zero_a = sign * (b[i] - zero_b) for all i. In 16 bits, which hold any difference
// of two codes; no way out of the loop, so that compilers vectorize it.
bool HaveSameNumbers(const int8_t* a, int8_t zero_a, const int8_t* b, int8_t zero_b, int sign,
                     int64_t count) {
  const auto factor = static_cast<int16_t>(sign);
  int16_t different = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto number_a = static_cast<int16_t>(a[i] - zero_a);
    const auto number_b = static_cast<int16_t>(b[i] - zero_b);
    different |= static_cast<int16_t>(number_a ^ static_cast<int16_t>(number_b * factor));
  }
  return different == 0;
}

// Whether equal codes times equal scales are seen to make the row; false says nothing.
bool IsSameRow(const QuantizedLinear& a, const QuantizedLinear& b, int64_t row) {
  if (a.scheme.code_type != b.scheme.code_type || a.global_scale != b.global_scale) return false;
  if (a.scheme.GroupSizeFor(a.in) != b.scheme.GroupSizeFor(b.in)) return false;
  const int64_t size = a.scheme.GroupSizeFor(a.in);
  for (int64_t g = 0; g < a.groups(); ++g) {
    const auto group = static_cast<size_t>(row * a.groups() + g);
    const int64_t first = row * a.in + g * size;
    const int64_t count = std::min(size, a.in - g * size);
    const int8_t* codes_a = a.codes.data() + first;
    const int8_t* codes_b = b.codes.data() + first;
    const int8_t zero_a = ZeroPoint(a, group);
    const int8_t zero_b = ZeroPoint(b, group);
    if (a.scales[group] == b.scales[group] && zero_a == zero_b) {
      if (std::memcmp(codes_a, codes_b, static_cast<size_t>(count)) != 0) return false;
      continue;
    }
    const bool mirrored = a.scales[group] == -b.scales[group];
    if (!mirrored && a.scales[group] != b.scales[group]) return false;
    if (a.scheme.code_type != CodeType::kInt) return false;
    if (!HaveSameNumbers(codes_a, zero_a, codes_b, zero_b, mirrored ? -1 : 1, count)) return false;
  }
  return true;
}

// Whether equal words are seen to stand for equal values; false says nothing.
bool IsSameBand(const RowBand& a, const RowBand& b) {
  const QuantizedLinear& x = a.rows;
  const QuantizedLinear& y = b.rows;
  return a.has_words() && b.has_words() && x.out == y.out && x.in == y.in &&
         x.scheme.code_type == y.scheme.code_type && x.scheme.bits == y.scheme.bits &&
         x.scheme.GroupSizeFor(x.in) == y.scheme.GroupSizeFor(y.in) &&
         x.scheme.symmetric == y.scheme.symmetric && x.global_scale == y.global_scale &&
         x.scales == y.scales && x.zero_points == y.zero_points &&
         a.words.size() == b.words.size() &&
         std::memcmp(a.words.data(), b.words.data(), a.words.size()) == 0;
}

}  // namespace

std::optional<int64_t> FindDifferentRow(RowBand& a, RowBand& b) {
  if (IsSameBand(a, b)) return std::nullopt;
  for (RowBand* band : {&a, &b}) {
    if (band->has_words()) band->Unpack();
  }
  return FindDifferentRow(a.rows, b.rows);
}

std::optional<int64_t> FindDifferentRow(const QuantizedLinear& a, const QuantizedLinear& b) {
  if (a.out != b.out || a.in != b.in) return 0;
  std::vector<float> values_a(static_cast<size_t>(a.in));
  std::vector<float> values_b(static_cast<size_t>(a.in));
  for (int64_t row = 0; row < a.out; ++row) {
    if (IsSameRow(a, b, row)) continue;
    DequantizeRow(a, row, values_a.data());
    DequantizeRow(b, row, values_b.data());
    if (values_a != values_b) return row;
  }
  return std::nullopt;
}

}  // namespace quantmill
