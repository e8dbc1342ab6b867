// The GEMV layouts of AutoAWQ, which are read alone. Per module (N outputs, K inputs, G groups):
//
//   gemv        qweight  I32  [N, K/8]   bits 4i of word c: code + 8 of input 8c + i
//               qzeros   I32  [N, Z]     likewise: zero point + 8 of group 8c + i
//               scales   F16  [N, 8 Z]
//   gemv_fast   qweight  I16  [N/4, K]   see InputOf
//               qzeros   F16  [8 Z, N]   -(scale * (zero point + 8))
//               scales   F16  [8 Z, N]
//
// Z = ceil(G / 8), rounded up to a multiple of 2 for groups of 64 and of 4 for groups of 32; what
// is past the last group has no meaning (formats.md section 3.2).
#include <cmath>
#include <cstring>

#include "formats/awq/layouts.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr int kHalf = 1 << (kAwqBits - 1);
constexpr int64_t kRows = 4;      // whose codes share a word of gemv_fast
constexpr int64_t kStretch = 64;  // inputs whose codes lie together there

int8_t Field(uint32_t word, int64_t index) {
  return static_cast<int8_t>(static_cast<int>(word >> (kAwqBits * index) & 0xFU) - kHalf);
}

int64_t ZeroWords(const QuantizedModule& module) {
  const int64_t words = (module.scheme.GroupsFor(module.in) + kAwqPerWord - 1) / kAwqPerWord;
  const int64_t size = module.scheme.GroupSizeFor(module.in);
  const int64_t multiple = size >= 128 ? 1 : size >= 64 ? 2 : 4;
  return (words + multiple - 1) / multiple * multiple;
}

void CheckGroupSize(const ModuleTensors& tensors, const QuantizedModule& module) {
  const int64_t size = module.scheme.GroupSizeFor(module.in);
  if ((size >= 128 || size == 64 || size == 32) && module.in % size == 0) return;
  tensors.Fail(kQweight, "has groups of " + std::to_string(size) + " of its " +
                             std::to_string(module.in) + " inputs, which this layout has not");
}

void CheckScales(const ModuleTensors& tensors, RowRange range, const QuantizedLinear& rows) {
  const int64_t first = range.begin * rows.groups();
  if (const auto bad = FindBadScale(rows.scales, ScaleSign::kPositive, first)) {
    tensors.Fail(kScales, *bad + " (counted output by output)");
  }
}

class GemvReader final : public AwqReader {
 public:
  using AwqReader::AwqReader;

 protected:
  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors,
                                        const QuantScheme&) const override {
    const auto [out, words] = tensors.ExpectMatrix(kQweight, "I32");
    return {out, words * kAwqPerWord};
  }

  void ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    CheckGroupSize(tensors, module);
    const auto unpack = [&](std::string_view suffix, int64_t words, int64_t count,
                            std::vector<int8_t>& fields) {
      const std::vector<uint32_t> stored =
          ToWords(LinesOf(tensors.Expect(suffix, "I32", {module.out, words}), module.out, range));
      fields.clear();
      fields.reserve(static_cast<size_t>(rows.out * count));
      for (int64_t o = 0; o < rows.out; ++o) {
        for (int64_t i = 0; i < count; ++i) {
          const auto word = static_cast<size_t>(o * words + i / kAwqPerWord);
          fields.push_back(Field(stored[word], i % kAwqPerWord));
        }
      }
    };
    const int64_t zero_words = ZeroWords(module);
    unpack(kQweight, module.in / kAwqPerWord, rows.in, rows.codes);
    unpack(kQzeros, zero_words, rows.groups(), rows.zero_points);
    const DType dtype = module.scheme.scale_dtype;
    const int64_t width = zero_words * kAwqPerWord;
    const std::vector<float> scales = DecodeScales(
        LinesOf(tensors.Expect(kScales, NameOf(dtype), {module.out, width}), module.out, range),
        dtype);
    for (int64_t o = 0; o < rows.out; ++o) {
      const auto row = scales.begin() + o * width;
      rows.scales.insert(rows.scales.end(), row, row + rows.groups());
    }
    CheckScales(tensors, range, rows);
  }
};

// The input whose code is at `place` of its row: within each 32, place 8q + 4a + b holds input
// 8b + 2q + a.
int64_t InputOf(int64_t place) {
  const int64_t q = place % 32 / 8;
  const int64_t a = place % 8 / 4;
  const int64_t b = place % 4;
  return place / 32 * 32 + 8 * b + 2 * q + a;
}

class GemvFastReader final : public AwqReader {
 public:
  using AwqReader::AwqReader;

 protected:
  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors,
                                        const QuantScheme&) const override {
    const auto [quarter, in] = tensors.ExpectMatrix(kQweight, "I16");
    if (in % kStretch != 0) {
      tensors.Fail(kQweight, "has " + std::to_string(in) + " inputs, no multiple of 64");
    }
    return {quarter * kRows, in};
  }

  void ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override {
    CheckGroupSize(tensors, module);
    ReadCodes(tensors, module, range, rows);
    const int64_t height = ZeroWords(module) * kAwqPerWord;
    const DType dtype = module.scheme.scale_dtype;
    const auto read = [&](std::string_view suffix) {
      const auto bytes = tensors.Expect(suffix, NameOf(dtype), {height, module.out});
      return DecodeScales(ColumnsOf(bytes, height, range, SizeOf(dtype)), dtype);
    };
    const std::vector<float> scales = read(kScales);
    const std::vector<float> shifts = read(kQzeros);
    for (int64_t o = 0; o < rows.out; ++o) {
      for (int64_t g = 0; g < rows.groups(); ++g) {
        const auto at = static_cast<size_t>(g * rows.out + o);
        rows.scales.push_back(scales[at]);
        rows.zero_points.push_back(
            ZeroOf(tensors, scales[at], shifts[at], dtype, g, range.begin + o));
      }
    }
    CheckScales(tensors, range, rows);
  }

 private:
  // Four rows of 64 codes after each other, four codes a word.
  static void ReadCodes(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                        QuantizedLinear& rows) {
    const int64_t lines = module.out / kRows;
    const auto bytes = LinesOf(tensors.Expect(kQweight, "I16", {lines, module.in}), lines,
                               {range.begin / kRows, range.end / kRows});
    std::vector<uint16_t> words(bytes.size() / sizeof(uint16_t));
    std::memcpy(words.data(), bytes.data(), bytes.size());
    rows.codes.resize(static_cast<size_t>(rows.out * rows.in));
    for (int64_t o = 0; o < rows.out; ++o) {
      for (int64_t place = 0; place < rows.in; ++place) {
        const int64_t within = o % kRows * kStretch + place % kStretch;
        const int64_t word = o / kRows * rows.in + place / kStretch * kStretch + within / 4;
        rows.codes[static_cast<size_t>(o * rows.in + InputOf(place))] =
            Field(words[static_cast<size_t>(word)], within % 4);
      }
    }
  }

  // The zero point that `shift` is the product of.
  static int8_t ZeroOf(const ModuleTensors& tensors, float scale, float shift, DType dtype,
                       int64_t group, int64_t output) {
    const float zero = std::nearbyint(-shift / scale);
    if (zero >= 0 && zero <= 15 && RoundTo(dtype, scale * zero) == -shift) {
      return static_cast<int8_t>(static_cast<int>(zero) - kHalf);
    }
    tensors.Fail(kQzeros, "element [" + std::to_string(group) + ", " + std::to_string(output) +
                              "] is no product of the scale and a zero point from 0 to 15");
  }
};

}  // namespace

std::unique_ptr<ArtifactReader> OpenAwqGemv(const Checkpoint& checkpoint,
                                            const QuantScheme& scheme) {
  return std::make_unique<GemvReader>(checkpoint, scheme);
}

std::unique_ptr<ArtifactReader> OpenAwqGemvFast(const Checkpoint& checkpoint,
                                                const QuantScheme& scheme) {
  return std::make_unique<GemvFastReader>(checkpoint, scheme);
}

}  // namespace quantmill
