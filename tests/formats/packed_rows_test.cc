// Rows of modules apart from each other: the same bytes and values as all at once, in every format.
#include "formats/packed_rows.h"

#include "formats/awq.h"
#include "formats/bitstream.h"
#include "formats/compressed_tensors.h"
#include "formats/fp8.h"
#include "formats/gptq.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

constexpr int64_t kPerChannel = QuantScheme::kPerChannel;
constexpr int64_t kAllRows = QuantScheme::kAllRows;
const InputScheme kInt8Static = {InputScheme::Type::kInt8, false, false};
const InputScheme kFp8Token = {InputScheme::Type::kFp8, true, true};
const InputScheme kFp8Static = {InputScheme::Type::kFp8, false, true};

struct Case {
  const ArtifactWriterFormat& format;
  QuantScheme scheme;
  std::vector<int64_t> outs;
};

QuantScheme Fp8(const InputScheme& input, int64_t row_block, int64_t group,
                DType dtype = DType::kF32) {
  return {8, true, group, dtype, CodeType::kFp8, row_block, input};
}

std::vector<Case> Cases() {
  const std::vector<int64_t> any = {1, 31, 32, 33, 96, 150};
  std::vector<Case> cases;
  for (const bool symmetric : {true, false}) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const int64_t group : {int64_t{32}, kPerChannel}) {
        const QuantScheme scheme = {bits, symmetric, group};
        cases.push_back({GptqFormat(), scheme, {32, 96, 160}});
        cases.push_back({GptqV2Format(), scheme, {32, 96, 160}});
      }
    }
    for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
      cases.push_back({CompressedTensorsFormat(), {bits, symmetric, 32, DType::kBF16}, any});
    }
  }
  for (const int64_t group : {int64_t{12}, int64_t{32}, kPerChannel}) {
    cases.push_back({AwqFormat(), {4, false, group}, {8, 32, 40, 136, 160}});
  }
  const QuantScheme nvfp4 = {4, true, 16, DType::kF8E4M3, CodeType::kFp4};
  const QuantScheme mxfp4 = {4, true, 32, DType::kF8E8M0, CodeType::kFp4};
  QuantScheme nvfp4_inputs = nvfp4;
  nvfp4_inputs.input = {InputScheme::Type::kFp4, true, true, 16, DType::kF8E4M3};
  for (const QuantScheme& scheme :
       {nvfp4, nvfp4_inputs, mxfp4, Fp8(kFp8Token, 1, kPerChannel),
        Fp8(kFp8Static, kAllRows, kPerChannel), Fp8({}, 48, 32),
        QuantScheme{8, true, kPerChannel, DType::kF16, CodeType::kInt, kAllRows, kInt8Static}}) {
    cases.push_back({CompressedTensorsFormat(), scheme, any});
  }
  cases.push_back({Fp8Format(), Fp8(kFp8Static, kAllRows, kPerChannel), any});
  InputScheme blocks = kFp8Token;
  blocks.group_size = 32;
  cases.push_back({Fp8Format(), Fp8(blocks, 16, 32), {16, 96, 144}});
  return cases;
}

// A case's modules, of several sizes.
NamedLinears LinearsOf(const Case& c, Random& random) {
  NamedLinears linears;
  for (const int64_t out : c.outs) {
    const int64_t in =
        c.scheme.group_size > 0 ? 96 / c.scheme.group_size * c.scheme.group_size : 96;
    QuantizedLinear linear = RandomLinear(c.scheme, out, in, random);
    // Version 1 of GPTQ does not hold the lowest.
    for (int8_t& zero : linear.zero_points) {
      zero = std::max(zero, static_cast<int8_t>(c.scheme.min_code() + 1));
    }
    linears.emplace_back("m.l" + std::to_string(out), std::move(linear));
  }
  return linears;
}

// Packs rows `range` by bands of one unit, the last band first.
void PackBackwards(const QuantizedLinear& linear, RowRange range, PackedRows& packed) {
  const int64_t unit = RowUnit(linear.scheme);
  const int64_t bands = (range.count() + unit - 1) / unit;
  for (int64_t band = bands - 1; band >= 0; --band) {
    const int64_t first = range.begin + band * unit;
    packed.Pack(first, RowsOf(linear, {first, std::min(range.end, first + unit)}));
  }
}

TEST(PackedRows, BytesAreThoseOfTheWholeModule) {
  Random random(5);
  PackedRows packed;  // one for all: leftovers must not show
  for (const Case& c : Cases()) {
    SCOPED_TRACE(std::string(c.format.name()) + " " + Describe(c.scheme));
    const NamedLinears linears = LinearsOf(c, random);
    TempFolder temp;
    WriteArtifact(temp / "whole", linears, c.format);
    const Checkpoint whole = Checkpoint::Open((temp / "whole").string());
    const auto reader = OpenArtifactReader(whole);
    for (const QuantizedModule& module : ModulesOf(linears)) {
      ExpectRowsAsRead(*reader, module.name);
    }

    OutputFolder folder(temp / "parts", false);
    std::vector<TensorDeclaration> tensors;
    for (const QuantizedModule& module : ModulesOf(linears)) {
      for (TensorDeclaration& tensor : c.format.Declare(module)) tensors.push_back(tensor);
    }
    CheckpointWriter writer(folder, tensors);
    for (const auto& [name, linear] : linears) {
      // Two units at a time, as for a module too large for the memory.
      const int64_t step = 2 * RowUnit(linear.scheme);
      for (int64_t begin = 0; begin < linear.out; begin += step) {
        const RowRange range = {begin, std::min(linear.out, begin + step)};
        packed.Begin(c.format, {name, linear.scheme, linear.out, linear.in}, range);
        PackBackwards(linear, range, packed);
        packed.WriteTo(writer);
      }
    }
    writer.Finish();
    const auto parts = SafetensorsFile::Open(folder.path() / "model.safetensors");
    ASSERT_EQ(parts.tensors().size(), tensors.size());
    for (const TensorInfo& info : parts.tensors()) {
      EXPECT_TRUE(std::ranges::equal(parts.Bytes(info), whole.Bytes(info.name))) << info.name;
    }
  }
}

// A module's words, by units from the last to the first, through a band that other rows have left.
void PackWordsBackwards(const ArtifactReader& reader, const QuantizedModule& module,
                        const QuantizedLinear& all, PackedRows& packed) {
  RowBand band;
  const int64_t unit = RowUnit(module.scheme);
  for (int64_t first = (module.out - 1) / unit * unit; first >= 0; first -= unit) {
    const RowRange range = {first, std::min(module.out, first + unit)};
    const QuantizedLinear rows = RowsOf(all, range);
    reader.ReadWords(module, range, band);
    ASSERT_TRUE(band.has_words());
    packed.Pack(first, band);
    std::vector<std::byte> words(band.words.size());
    PackCodes(rows.codes, rows.out, rows.in, rows.scheme.bits, words);
    EXPECT_TRUE(std::ranges::equal(band.words, words));
    EXPECT_TRUE(band.rows.codes.empty());
    band.Unpack();
    EXPECT_FALSE(band.has_words());
    ExpectSameLinear(band.rows, rows);
  }
}

// Codes that stay in the words of a file make the file that they make as codes.
TEST(PackedRows, WordsMakeTheBytesOfCodes) {
  Random random(9);
  PackedRows packed;
  int with_words = 0;
  for (const Case& c : Cases()) {
    SCOPED_TRACE(std::string(c.format.name()) + " " + Describe(c.scheme));
    const NamedLinears linears = LinearsOf(c, random);
    TempFolder temp;
    WriteArtifact(temp / "codes", linears, c.format);
    const Checkpoint codes = Checkpoint::Open((temp / "codes").string());
    const auto reader = OpenArtifactReader(codes);
    for (const auto& [name, linear] : linears) {
      const QuantizedModule module = reader->Describe(name);
      ASSERT_EQ(reader->HasWords(module), c.format.HasWords(module));
      if (!reader->HasWords(module)) continue;
      ++with_words;
      OutputFolder folder(temp / "words", true);
      CheckpointWriter writer(folder, c.format.Declare(module));
      packed.Begin(c.format, module, {0, module.out});
      PackWordsBackwards(*reader, module, linear, packed);
      packed.WriteTo(writer);
      writer.Finish();
      const auto words = SafetensorsFile::Open(folder.path() / "model.safetensors");
      for (const TensorInfo& info : words.tensors()) {
        EXPECT_TRUE(std::ranges::equal(words.Bytes(info), codes.Bytes(info.name))) << info.name;
      }
    }
  }
  EXPECT_GT(with_words, 100);
}

TEST(PackedRows, ErrorsCountRowsOfTheWhole) {
  Random random(6);
  QuantizedLinear linear = RandomLinear({4, false, 32}, 96, 64, random);
  for (int8_t& zero : linear.zero_points) zero = std::max<int8_t>(zero, -7);
  linear.zero_points[70 * 2 + 1] = -8;
  PackedRows packed;
  const QuantizedModule module = {"m.a", linear.scheme, linear.out, linear.in};
  packed.Begin(GptqFormat(), module, {64, 96});
  ExpectError(ErrorCode::kUsage, {"m.a", "output 70, group 1"}, [&] {
    packed.Pack(64, RowsOf(linear, {64, 96}));
  });
}

TEST(PackedRowsDeathTest, RefusesRowsThatCannotBeApart) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Random random(7);
  const QuantizedLinear linear = RandomLinear({4, true, 32}, 96, 64, random);
  const QuantizedModule module = {"m.a", linear.scheme, linear.out, linear.in};
  PackedRows packed;
  packed.Begin(GptqFormat(), module, {32, 96});
  EXPECT_DEATH(packed.Pack(0, RowsOf(linear, {0, 32})), "Begin has not");
  EXPECT_DEATH(packed.Pack(64, RowsOf(linear, {0, 64})), "Begin has not");
}

// What is wrong in the last rows, and only what ReadRows of these sees, with its place in the
// whole.
TEST(ReadRows, ErrorsCountRowsOfTheWhole) {
  Random random(8);
  TempFolder temp;
  const auto refused = [&](const QuantizedLinear& linear, const ArtifactWriterFormat& format,
                           const TensorEdit& edit, const std::string& what) {
    WriteArtifact(temp / "m", {{"m.a", linear}}, format);
    EditTensors(temp / "m", {edit});
    const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
    const auto reader = OpenArtifactReader(checkpoint);
    const QuantizedModule module = reader->Describe("m.a");
    QuantizedLinear rows;
    EXPECT_NO_THROW(reader->ReadRows(module, {0, 32}, rows)) << what;
    EXPECT_NO_THROW(reader->ReadRows(module, {64, 96}, rows)) << what;
    ExpectError(ErrorCode::kBadInput, {edit.name, what}, [&] {
      reader->ReadRows(module, {32, 64}, rows);
    });
    ExpectError(ErrorCode::kBadInput, {edit.name, what}, [&] { reader->Read("m.a"); });
  };
  const auto text = [](const auto& values) {
    return std::string(reinterpret_cast<const char*>(values.data()),
                       values.size() * sizeof(values[0]));
  };
  std::vector<uint32_t> words(96 * 3, 0);
  words[40 * 3 + 2] = 0x80000000U;  // 21 codes of 4 bits leave bits free
  refused(RandomLinear({4, true, kPerChannel}, 96, 21, random), CompressedTensorsFormat(),
          {"m.a.weight_packed", "I32", {96, 3}, text(words)}, "row 40 has bits set");
  std::string codes(96 * 8, '\x01');
  codes[50 * 8 + 3] = '\x7F';
  refused(RandomLinear(Fp8(kFp8Static, kAllRows, kPerChannel), 96, 8, random), Fp8Format(),
          {"m.a.weight", "F8_E4M3", {96, 8}, codes}, "element [50, 3] is NaN");
  std::vector<F16> scales(2 * 96, ToF16(1));
  scales[96 + 33] = ToF16(0);  // stored by groups, counted by outputs
  refused(RandomLinear({4, true, 32}, 96, 64, random), GptqFormat(),
          {"m.a.scales", "F16", {2, 96}, text(scales)}, "scale 67 is zero");
  std::vector<uint32_t> zeros(2 * 12, 0x77777777U);
  zeros[12 + 5] = 0x77777787U;
  refused(RandomLinear({4, true, 32}, 96, 64, random), GptqFormat(),
          {"m.a.qzeros", "I32", {2, 12}, text(zeros)}, "group 1, output 41");
}

}  // namespace
}  // namespace quantmill::test
