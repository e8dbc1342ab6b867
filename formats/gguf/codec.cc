#include "formats/gguf/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/gguf/blocks.h"
#include "formats/gguf/encode.h"
#include "kernels/core/dtype.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

void CheckRow(GgmlType type, size_t elements, size_t bytes) {
  const std::optional<uint64_t> wanted = RowBytes(type, static_cast<int64_t>(elements));
  Check(wanted.has_value(), "a row does not fill whole blocks");
  Check(*wanted == bytes, "wrong number of bytes for a row");
}

// Rows of 16-bit floats; bytes need no alignment.
template <typename T>
void DecodeHalf(std::span<const std::byte> bytes, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, &bytes[i * sizeof(T)], sizeof(T));
    out[i] = ToFloat(value);
  }
}

template <typename T>
void EncodeHalf(std::span<const float> x, T (*convert)(float), std::span<std::byte> bytes) {
  for (size_t i = 0; i < x.size(); ++i) {
    const T value = convert(x[i]);
    std::memcpy(&bytes[i * sizeof(T)], &value, sizeof(T));
  }
}

// Of elements and bytes of one block.
template <typename Block>
constexpr size_t kElementsOf = std::tuple_size_v<decltype(Block::codes)>;
template <typename Block>
size_t BytesOfBlock() {
  return static_cast<size_t>(InfoOf(Block::kType).block_bytes);
}

// Bounds of the exponent that is taken out: x itself must not overflow or turn subnormal by it.
// Below the smallest, everything but MXFP4 stores zeros anyway.
constexpr int kSmallestExponent = -100;
constexpr int kLargestExponent = 120;

// Largest element, > 0 -> an exponent near its own.
int ExponentOf(float largest) {
  return std::clamp(std::ilogb(largest), kSmallestExponent, kLargestExponent);
}

}  // namespace

template <int size>
Samples<size>::Samples(const float* values, const float* importance) {
  float largest = 0;
  float heaviest = 0;
  for (int i = 0; i < size; ++i) {
    largest = std::max(largest, std::fabs(values[i]));
    if (importance != nullptr) heaviest = std::max(heaviest, importance[i]);
  }
  if (largest > 0) exponent = ExponentOf(largest);
  const int weight_exponent = heaviest > 0 ? ExponentOf(heaviest) : 0;
  const float factor = std::ldexp(1.0f, -exponent);
  const float weight_factor = std::ldexp(1.0f, -weight_exponent);
  for (size_t i = 0; i < size; ++i) {
    x[i] = values[i] * factor;
    w[i] = heaviest > 0 ? importance[i] * weight_factor : 1.0f;
  }
}

template <int size>
bool Samples<size>::zero() const {
  return std::all_of(x.begin(), x.end(), [](float value) { return value == 0; });
}

template struct Samples<kBlock>;
template struct Samples<kSuperBlock>;

bool HasCodec(GgmlType type) {
  return type == GgmlType::kF32 || type == GgmlType::kF16 || type == GgmlType::kBf16 ||
         WithBlock(type, [](const auto&) {});
}

void DecodeRow(GgmlType type, std::span<const std::byte> bytes, std::span<float> out) {
  CheckRow(type, out.size(), bytes.size());
  if (out.empty()) return;
  if (type == GgmlType::kF32) {
    std::memcpy(out.data(), bytes.data(), bytes.size());
  } else if (type == GgmlType::kF16) {
    DecodeHalf<F16>(bytes, out);
  } else if (type == GgmlType::kBf16) {
    DecodeHalf<BF16>(bytes, out);
  } else {
    const bool known = WithBlock(type, [&](auto block) {
      using Block = decltype(block);
      const size_t packed = BytesOfBlock<Block>();
      for (size_t b = 0; b * packed < bytes.size(); ++b) {
        Unpack(bytes.subspan(b * packed, packed), block);
        ValuesOf(block, &out[b * kElementsOf<Block>]);
      }
    });
    Check(known, "this ggml type is not decoded");
  }
}

void EncodeRow(GgmlType type, std::span<const float> x, std::span<const float> importance,
               std::span<std::byte> bytes) {
  CheckRow(type, x.size(), bytes.size());
  if (x.empty()) return;
  Check(importance.empty() || importance.size() == x.size(), "one weight for each element");
  Check(std::all_of(x.begin(), x.end(), [](float value) { return std::isfinite(value); }),
        "only finite values are encoded");
  Check(std::all_of(importance.begin(), importance.end(),
                    [](float weight) { return std::isfinite(weight) && weight >= 0; }),
        "weights are finite and not negative");
  if (type == GgmlType::kF32) {
    std::memcpy(bytes.data(), x.data(), bytes.size());
  } else if (type == GgmlType::kF16) {
    EncodeHalf(x, ToF16, bytes);
  } else if (type == GgmlType::kBf16) {
    EncodeHalf(x, ToBF16, bytes);
  } else {
    const bool known = WithBlock(type, [&](auto block) {
      using Block = decltype(block);
      constexpr size_t kElements = kElementsOf<Block>;
      const size_t packed = BytesOfBlock<Block>();
      for (size_t b = 0; b * kElements < x.size(); ++b) {
        const float* weights = importance.empty() ? nullptr : &importance[b * kElements];
        Encode(Samples<kElements>(&x[b * kElements], weights), block);
        Pack(block, bytes.subspan(b * packed, packed));
      }
    });
    Check(known, "this ggml type is not encoded");
  }
}

}  // namespace quantmill
