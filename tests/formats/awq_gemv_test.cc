// AutoAWQ's GEMV layouts: packed here as its Python does, step by step, and read back.
#include <array>
#include <nlohmann/json.hpp>

#include "formats/awq.h"
#include "formats/json.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::IsEmpty;

// A numpy array of integers: reshape and transpose alone.
struct Array {
  std::vector<int> values;
  std::vector<int64_t> shape;

  Array Reshaped(std::vector<int64_t> to) const { return {values, std::move(to)}; }
  // Axis i of the result is axis axes[i] of this.
  Array Transposed(const std::vector<size_t>& axes) const {
    std::vector<int64_t> strides(shape.size(), 1);
    for (size_t i = shape.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * shape[i];
    Array result{std::vector<int>(values.size()), {}};
    for (const size_t axis : axes) result.shape.push_back(shape[axis]);
    for (size_t flat = 0; flat < values.size(); ++flat) {
      auto rest = static_cast<int64_t>(flat);
      int64_t from = 0;
      for (size_t i = axes.size(); i-- > 0;) {
        from += rest % result.shape[i] * strides[axes[i]];
        rest /= result.shape[i];
      }
      result.values[flat] = values[static_cast<size_t>(from)];
    }
    return result;
  }
};

// AutoAWQ's pack_intweight(interleave=4, kstride=64).
std::vector<uint16_t> PackFast(const QuantizedLinear& linear) {
  const int64_t n = linear.out;
  const int64_t k = linear.in;
  Array codes;
  for (const int8_t code : linear.codes) codes.values.push_back(code + 8);
  codes = codes.Reshaped({n, k / 32, 4, 4, 2}).Transposed({0, 1, 3, 2, 4});
  codes = codes.Reshaped({n, k / 32, 4, 4, 2}).Transposed({0, 1, 2, 4, 3});
  codes = codes.Reshaped({n / 4, 4, k / 64, 64}).Transposed({0, 2, 1, 3});
  std::vector<uint16_t> words;
  for (size_t i = 0; i < codes.values.size(); i += 4) {
    const int* four = codes.values.data() + i;
    words.push_back(static_cast<uint16_t>(four[0] | four[1] << 4 | four[2] << 8 | four[3] << 12));
  }
  return words;
}

// Rows of fields, lowest bits first, padded to `words` words a row.
std::vector<uint32_t> PackRows(const std::vector<int8_t>& fields, int64_t rows, int64_t words) {
  const int64_t count = std::ssize(fields) / rows;
  std::vector<uint32_t> packed(static_cast<size_t>(rows * words), 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < count; ++i) {
      const auto field = static_cast<uint32_t>(fields[static_cast<size_t>(r * count + i)] + 8);
      packed[static_cast<size_t>(r * words + i / 8)] |= field << (4 * (i % 8));
    }
  }
  return packed;
}

class AwqGemvTest : public testing::Test {
 protected:
  // A file of one module, still in the GEMM layout.
  QuantizedLinear Make(int64_t group, int64_t out, int64_t in) {
    QuantizedLinear linear = RandomLinear({4, false, group, DType::kF16}, out, in, random_);
    WriteArtifact(path_, {{"m.a", linear}}, AwqFormat());
    return linear;
  }
  void SetVersion(const std::string& version) {
    nlohmann::json config = ReadJsonFile(path_ / "config.json");
    config["quantization_config"]["version"] = version;
    WriteFile(path_ / "config.json", config.dump());
  }
  // zero_words: of a row, by hand from formats.md.
  void WriteGemv(const QuantizedLinear& linear, int64_t zero_words) {
    const int64_t width = 8 * zero_words;
    std::vector<F16> scales(static_cast<size_t>(linear.out * width), ToF16(0));
    for (int64_t o = 0; o < linear.out; ++o) {
      for (int64_t g = 0; g < linear.groups(); ++g) {
        scales[static_cast<size_t>(o * width + g)] =
            ToF16(linear.scales[static_cast<size_t>(o * linear.groups() + g)]);
      }
    }
    EditTensors(path_, {{"m.a.qweight",
                         "I32",
                         {linear.out, linear.in / 8},
                         AsText(PackRows(linear.codes, linear.out, linear.in / 8))},
                        {"m.a.qzeros",
                         "I32",
                         {linear.out, zero_words},
                         AsText(PackRows(linear.zero_points, linear.out, zero_words))},
                        {"m.a.scales", "F16", {linear.out, width}, AsText(scales)}});
    SetVersion("gemv");
  }
  void WriteFast(const QuantizedLinear& linear, int64_t zero_words, float shift_factor = 1) {
    const int64_t height = 8 * zero_words;
    std::vector<F16> scales(static_cast<size_t>(linear.out * height), ToF16(0));
    std::vector<F16> shifts = scales;
    for (int64_t o = 0; o < linear.out; ++o) {
      for (int64_t g = 0; g < linear.groups(); ++g) {
        const auto from = static_cast<size_t>(o * linear.groups() + g);
        const auto to = static_cast<size_t>(g * linear.out + o);
        const auto zero = static_cast<float>(linear.zero_points[from] + 8);
        scales[to] = ToF16(linear.scales[from]);
        shifts[to] = ToF16(-(linear.scales[from] * zero * shift_factor));
      }
    }
    EditTensors(path_,
                {{"m.a.qweight", "I16", {linear.out / 4, linear.in}, AsText(PackFast(linear))},
                 {"m.a.qzeros", "F16", {height, linear.out}, AsText(shifts)},
                 {"m.a.scales", "F16", {height, linear.out}, AsText(scales)}});
    SetVersion("gemv_fast");
  }
  void ExpectRead(const QuantizedLinear& want) {
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectSameLinear(reader->Read("m.a"), want);
    ExpectRowsAsRead(*reader, "m.a");
    EXPECT_THAT(reader->CheckTensors(), IsEmpty());
  }

  Random random_{11};
  TempFolder temp_;
  const std::filesystem::path path_ = temp_ / "model";
};

// {group, inputs, words of zero points}: the width that AutoAWQ's calculate_zeros_width gives.
constexpr std::array<std::array<int64_t, 3>, 4> kShapes = {
    {{128, 256, 1}, {64, 1152, 4}, {32, 320, 4}, {128, 1152, 2}}};

TEST_F(AwqGemvTest, GemvIsRead) {
  for (const auto& [group, in, words] : kShapes) {
    const QuantizedLinear linear = Make(group, 72, in);
    WriteGemv(linear, words);
    ExpectRead(linear);
  }
}

TEST_F(AwqGemvTest, GemvFastIsRead) {
  for (const auto& [group, in, words] : kShapes) {
    const QuantizedLinear linear = Make(group, 72, in);
    WriteFast(linear, words);
    ExpectRead(linear);
  }
}

// formats.md section 3.2: the first eight words of a row of codes that count their inputs.
TEST_F(AwqGemvTest, FirstWordOfGemvFastByHand) {
  QuantizedLinear linear = Make(64, 8, 64);
  for (size_t i = 0; i < linear.codes.size(); ++i) {
    linear.codes[i] = static_cast<int8_t>(i % 64 % 16 - 8);
  }
  const std::vector<uint16_t> words = PackFast(linear);
  // Inputs 0 8 16 24, 1 9 17 25, 2 10 18 26, ... modulo 16, the first in the lowest bits.
  EXPECT_EQ(words[0], 0x8080);
  EXPECT_EQ(words[1], 0x9191);
  EXPECT_EQ(words[2], 0xA2A2);
}

TEST_F(AwqGemvTest, DefectsNameTheirTensor) {
  const auto expect_bad = [&](const std::vector<std::string>& parts) {
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, parts, [&] { reader->Read("m.a"); });
    EXPECT_THAT(reader->CheckTensors(), testing::Not(IsEmpty()));
  };
  WriteFast(Make(64, 8, 128), 2, 1.03f);
  expect_bad({"m.a.qzeros", "no product of the scale"});
  WriteGemv(Make(32, 8, 128), 2);  // a width without the rounding to 4
  expect_bad({"m.a.qzeros", "[8, 4]"});
  WriteGemv(Make(48, 8, 96), 1);
  expect_bad({"m.a.qweight", "groups of 48"});
}

}  // namespace
}  // namespace quantmill::test
