// Packing and unpacking. Byte table: gptq.h.
#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/bitstream.h"
#include "formats/gptq.h"
#include "formats/gptq/config.h"
#include "formats/group_index.h"
#include "formats/qweight.h"
#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr int64_t kMultiple = 32;  // of inputs and outputs: whole words for any number of bits

int64_t WordsOf(int64_t count, int bits) { return count * bits / 32; }

// A zero point as it is stored, in the signed convention: less one in version 1, wrapping.
int8_t StoredZero(int8_t zero, const QuantScheme& scheme, bool version_2) {
  if (version_2) return zero;
  return zero == scheme.min_code() ? static_cast<int8_t>(scheme.max_code())
                                   : static_cast<int8_t>(zero - 1);
}

class Format final : public WriterWithoutCache {
 public:
  explicit Format(bool version_2) : version_2_(version_2) {}

  std::string_view name() const override { return version_2_ ? "gptq_v2" : "gptq"; }
  std::optional<DType> scale_type() const override { return DType::kF16; }

  void CheckSupported(const QuantizedModule& module) const override {
    const std::string why = Refusal(module);
    if (!why.empty()) {
      throw Error(ErrorCode::kUsage, module.name, std::string(name()) + ": " + why);
    }
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    const int bits = module.scheme.bits;
    const int64_t groups = module.scheme.GroupsFor(module.in);
    const auto declare = [&](std::string_view suffix, DType dtype, std::vector<int64_t> shape) {
      return quantmill::Declare(module.name + std::string(suffix), dtype, std::move(shape));
    };
    return {declare(kQweight, DType::kI32, {WordsOf(module.in, bits), module.out}),
            declare(kQzeros, DType::kI32, {groups, WordsOf(module.out, bits)}),
            declare(kScales, DType::kF16, {groups, module.out}),
            declare(kGroupIndex, DType::kI32, {module.in})};
  }

  void PackRows(const QuantizedModule& module, int64_t first, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override;
  bool HasWords(const QuantizedModule&) const override { return true; }
  void PackWords(const QuantizedModule& module, int64_t first, const RowBand& band,
                 std::span<const TensorRows> to) const override;

  nlohmann::json QuantizationConfig(std::span<const QuantizedModule> modules,
                                    std::span<const std::string> dense,
                                    const KvScheme& kv) const override {
    CheckSupportedKv(kv);
    return MakeGptqConfig(modules, dense, version_2_);
  }

 private:
  static std::string Refusal(const QuantizedModule& module);
  // All tensors but the codes'.
  void PackGrid(const QuantizedModule& module, int64_t first, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const;
  std::vector<uint32_t> PackZeros(const std::string& module, int64_t first,
                                  const QuantizedLinear& linear) const;

  bool version_2_;
};

std::string Format::Refusal(const QuantizedModule& module) {
  const QuantScheme& scheme = module.scheme;
  const bool known_bits =
      scheme.bits == 2 || scheme.bits == 3 || scheme.bits == 4 || scheme.bits == 8;
  if (scheme.code_type != CodeType::kInt || !known_bits || scheme.row_block != 1 ||
      scheme.input.type != InputScheme::Type::kNone) {
    return "holds weight-only integers of 2, 3, 4 and 8 bits, not " + Describe(scheme);
  }
  for (const auto& [size, what] : {std::pair{module.in, "inputs"}, {module.out, "outputs"}}) {
    if (size >= 1 && size % kMultiple == 0) continue;
    return "its " + std::to_string(size) + " " + what + " are no multiple of " +
           std::to_string(kMultiple) + ", so they fill no whole words: leave this layer dense";
  }
  if (module.in % scheme.GroupSizeFor(module.in) != 0) {
    return "its " + std::to_string(module.in) + " inputs are no multiple of the group size " +
           std::to_string(scheme.group_size);
  }
  if (scheme.scale_dtype != DType::kF16) return "scales are F16";
  return "";
}

std::vector<uint32_t> Format::PackZeros(const std::string& module, int64_t first,
                                        const QuantizedLinear& linear) const {
  const QuantScheme& scheme = linear.scheme;
  const int64_t groups = linear.groups();
  std::vector<int8_t> stored(static_cast<size_t>(groups * linear.out));
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t g = 0; g < groups; ++g) {
      const int8_t zero =
          scheme.symmetric ? int8_t{0} : linear.zero_points[static_cast<size_t>(o * groups + g)];
      if (!version_2_ && zero == scheme.min_code()) {
        throw Error(ErrorCode::kUsage, module,
                    "gptq: output " + std::to_string(first + o) + ", group " + std::to_string(g) +
                        " has zero point 0, which version 1 stores as -1: readers undo that in "
                        "different ways. --format gptq_v2 stores it as it is");
      }
      stored[static_cast<size_t>(g * linear.out + o)] = StoredZero(zero, scheme, version_2_);
    }
  }
  std::vector<uint32_t> words(static_cast<size_t>(groups * WordsOf(linear.out, scheme.bits)));
  PackCodes(stored, groups, linear.out, scheme.bits, std::as_writable_bytes(std::span(words)));
  return words;
}

// The group of each input.
std::vector<int32_t> GroupsInOrder(const QuantScheme& scheme, int64_t in) {
  std::vector<int32_t> groups;
  groups.reserve(static_cast<size_t>(in));
  const auto size = static_cast<size_t>(scheme.GroupSizeFor(in));
  for (int64_t g = 0; g < scheme.GroupsFor(in); ++g) {
    groups.insert(groups.end(), size, static_cast<int32_t>(g));
  }
  return groups;
}

void Format::PackRows(const QuantizedModule& module, int64_t first, const QuantizedLinear& rows,
                      std::span<const TensorRows> to) const {
  PackColumns(rows.codes, rows.out, rows.in, rows.scheme.bits, to[0].data, to[0].stride);
  PackGrid(module, first, rows, to);
}

void Format::PackWords(const QuantizedModule& module, int64_t first, const RowBand& band,
                       std::span<const TensorRows> to) const {
  const int64_t row_words = WordsPerRow(band.rows.in, band.rows.scheme.bits);
  TransposeWords(band.words.data(), static_cast<size_t>(row_words * kWordBytes), band.rows.out,
                 row_words, to[0].data, to[0].stride);
  PackGrid(module, first, band.rows, to);
}

void Format::PackGrid(const QuantizedModule& module, int64_t first, const QuantizedLinear& rows,
                      std::span<const TensorRows> to) const {
  Fill(to[1], BytesOf(PackZeros(module.name, first, rows)));
  Fill(to[2], TransposedScales(rows));
  Fill(to[3], BytesOf(GroupsInOrder(rows.scheme, rows.in)));
}

class Reader final : public QweightReader {
 public:
  explicit Reader(const Checkpoint& checkpoint)
      : QweightReader(checkpoint, {kQweight, kQzeros, kScales, kGroupIndex}),
        config_(GptqConfig::Parse(checkpoint.config().at("quantization_config"), config_path())) {}

  std::string_view format() const override { return config_.version_2() ? "gptq_v2" : "gptq"; }
  bool HasWords(const QuantizedModule&) const override { return true; }

 protected:
  QuantScheme StoredScheme(const ModuleTensors& tensors) const override;
  std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors,
                                        const QuantScheme& scheme) const override;
  void ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const override;
  void ReadWordsInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                     RowBand& band) const override;

 private:
  void ReadGrid(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                QuantizedLinear& rows) const;
  QuantScheme DeclaredScheme(const ModuleTensors& tensors) const;
  void ReadZeros(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                 QuantizedLinear& rows) const;

  GptqConfig config_;
};

QuantScheme Reader::DeclaredScheme(const ModuleTensors& tensors) const {
  const std::optional<QuantScheme> scheme = config_.SchemeFor(tensors.Name(""));
  if (!scheme)
    tensors.Fail(kQweight, "is packed, but the configuration's `dynamic` leaves it dense");
  return *scheme;
}

// The declared scheme; where act-order scattered the inputs of groups, with the runs that share one
// as groups, down to single inputs.
QuantScheme Reader::StoredScheme(const ModuleTensors& tensors) const {
  QuantScheme scheme = DeclaredScheme(tensors);
  if (!tensors.Has(kGroupIndex)) return scheme;  // old files without act-order
  const int64_t in = ReadShape(tensors, scheme).second;
  const int64_t size = scheme.GroupSizeFor(in);
  const auto index = GroupIndex::Read(tensors, kGroupIndex, in, scheme.GroupsFor(in));
  if (!index.IsInOrder(size)) scheme.group_size = index.RunLength(size);
  return scheme;
}

std::pair<int64_t, int64_t> Reader::ReadShape(const ModuleTensors& tensors,
                                              const QuantScheme& scheme) const {
  const auto [words, out] = tensors.ExpectMatrix(kQweight, "I32");
  if (words * 32 % scheme.bits != 0 || out * scheme.bits % 32 != 0) {
    tensors.Fail(kQweight, "of shape [" + std::to_string(words) + ", " + std::to_string(out) +
                               "] holds no whole number of " + std::to_string(scheme.bits) +
                               "-bit codes");
  }
  return {out, words * 32 / scheme.bits};
}

// Scales and zero points.
void Reader::ReadGrid(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                      QuantizedLinear& rows) const {
  QuantizedModule declared = module;  // with the groups of the file
  declared.scheme = DeclaredScheme(tensors);
  declared.scheme.scale_dtype = module.scheme.scale_dtype;
  QuantizedLinear stored;
  StartRows(declared, range, stored);
  stored.scales = ReadTransposedScales(tensors, declared, range);
  ReadZeros(tensors, declared, range, stored);
  if (!tensors.Has(kGroupIndex)) {
    rows.scales = std::move(stored.scales);
    rows.zero_points = std::move(stored.zero_points);
    return;
  }
  GroupIndex::Read(tensors, kGroupIndex, rows.in, stored.groups()).Spread(stored, rows);
}

void Reader::ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                      QuantizedLinear& rows) const {
  ReadGrid(tensors, module, range, rows);
  const int bits = module.scheme.bits;
  const auto words = tensors.Expect(kQweight, "I32", {WordsOf(module.in, bits), module.out});
  rows.codes.resize(static_cast<size_t>(rows.out * rows.in));
  UnpackColumns(words.data() + range.begin * kWordBytes,
                static_cast<size_t>(module.out * kWordBytes), rows.out, rows.in, bits, rows.codes);
}

void Reader::ReadWordsInto(const ModuleTensors& tensors, const QuantizedModule& module,
                           RowRange range, RowBand& band) const {
  ReadGrid(tensors, module, range, band.rows);
  const int64_t row_words = WordsOf(module.in, module.scheme.bits);
  const auto words = tensors.Expect(kQweight, "I32", {row_words, module.out});
  const auto row_bytes = static_cast<size_t>(row_words * kWordBytes);
  band.memory.resize(static_cast<size_t>(range.count()) * row_bytes);
  TransposeWords(words.data() + range.begin * kWordBytes,
                 static_cast<size_t>(module.out * kWordBytes), row_words, range.count(),
                 band.memory.data(), row_bytes);
  band.words = band.memory;
}

void Reader::ReadZeros(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                       QuantizedLinear& rows) const {
  const QuantScheme& scheme = module.scheme;
  const int64_t groups = rows.groups();
  const auto words = tensors.Expect(kQzeros, "I32", {groups, WordsOf(module.out, scheme.bits)});
  const RowRange own = {WordsOf(range.begin, scheme.bits), WordsOf(range.end, scheme.bits)};
  std::vector<int8_t> stored(static_cast<size_t>(groups * rows.out));
  UnpackCodes(ColumnsOf(words, groups, own, kWordBytes), groups, rows.out, scheme.bits, stored);
  const auto place = [&](size_t i) {
    const auto at = static_cast<int64_t>(i);
    return "group " + std::to_string(at / rows.out) + ", output " +
           std::to_string(range.begin + at % rows.out);
  };
  if (scheme.symmetric) {
    const int8_t expected = StoredZero(0, scheme, config_.version_2());
    for (size_t i = 0; i < stored.size(); ++i) {
      if (stored[i] == expected) continue;
      const bool other_version = stored[i] == StoredZero(0, scheme, !config_.version_2());
      tensors.Fail(
          kQzeros,
          place(i) + ": a symmetric " + std::string(format()) + " file stores " +
              std::to_string(expected - scheme.min_code()) + ", found " +
              std::to_string(stored[i] - scheme.min_code()) +
              (other_version ? ", which the other version stores: checkpoint_format is wrong"
                             : ""));
    }
    return;
  }
  for (size_t i = 0; i < stored.size(); ++i) {
    if (config_.version_2()) continue;
    if (stored[i] == scheme.max_code()) {
      tensors.Fail(kQzeros, place(i) +
                                ": version 1 stores zero points less one, and readers "
                                "disagree on whether this one wraps to 0");
    }
    ++stored[i];
  }
  rows.zero_points.resize(stored.size());
  Transpose<int8_t>(stored, groups, rows.out, rows.zero_points);
}

}  // namespace

const ArtifactWriterFormat& GptqFormat() {
  static const Format format(false);
  return format;
}

const ArtifactWriterFormat& GptqV2Format() {
  static const Format format(true);
  return format;
}

std::unique_ptr<ArtifactReader> OpenGptq(const Checkpoint& checkpoint) {
  return std::make_unique<Reader>(checkpoint);
}

}  // namespace quantmill
