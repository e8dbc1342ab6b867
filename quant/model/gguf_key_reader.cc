#include "quant/model/gguf_key_reader.h"

#include <array>
#include <charconv>
#include <cmath>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr uint64_t kMostSize = uint64_t{1} << 40;  // as ConfigReader has it

}  // namespace

double ShortestDecimal(double value) {
  std::array<char, 64> text{};
  const auto written =
      std::to_chars(text.data(), text.data() + text.size(), static_cast<float>(value));
  double result = 0;
  std::from_chars(text.data(), written.ptr, result);
  return result;
}

GgufKeyReader::GgufKeyReader(const GgufModelFiles& files) : files_(files), family_(FindFamily()) {
  Key("expert_count");
}

const GgufFamily& GgufKeyReader::FindFamily() const {
  const std::string* name = metadata().Text("general.architecture");
  if (name == nullptr) metadata().Fail("general.architecture", "a STRING");
  const std::string* type = metadata().Text("general.type");
  if (type != nullptr && *type != "model") {
    Refuse("general.type", "is '" + *type + "': this is no model's file");
  }
  const std::string experts = *name + ".expert_count";
  const bool has_experts = metadata().Unsigned(experts).value_or(0) > 0;
  if (const GgufFamily* family = FindGgufFamily(*name, has_experts)) return *family;
  if (FindGgufFamily(*name, !has_experts) != nullptr) {
    if (has_experts) Refuse(experts, "is set, and that architecture is read without experts");
    metadata().Fail(experts, "a positive integer");
  }
  std::set<std::string> known;
  for (const GgufFamily& family : GgufFamilies()) known.emplace(family.name);
  std::string list;
  for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
  Refuse("general.architecture", "is '" + *name + "', which is not read; those that are: " + list);
}

void GgufKeyReader::Refuse(const std::string& key, const std::string& what) const {
  throw Error(ErrorCode::kBadInput, metadata().where(), "metadata key '" + key + "' " + what);
}

std::string GgufKeyReader::Key(const std::string& name) {
  std::string key = std::string(family_.name) + "." + name;
  known_.insert(key);
  return key;
}

std::optional<int64_t> GgufKeyReader::MaybeCount(const std::string& name) {
  const std::string key = Key(name);
  const std::optional<uint64_t> value = metadata().Unsigned(key);
  if (!value) return std::nullopt;
  if (*value > kMostSize) {
    Refuse(key, "is " + std::to_string(*value) + ", which is no possible size");
  }
  return static_cast<int64_t>(*value);
}

std::optional<int64_t> GgufKeyReader::MaybeSize(const std::string& name) {
  const std::optional<int64_t> value = MaybeCount(name);
  if (value == 0) Refuse(Key(name), "is 0, which is no possible size");
  return value;
}

int64_t GgufKeyReader::Size(const std::string& name) {
  const std::optional<int64_t> value = MaybeSize(name);
  if (!value) metadata().Fail(Key(name), "a positive integer");
  return *value;
}

std::optional<double> GgufKeyReader::Real(const std::string& name) {
  const std::string key = Key(name);
  const std::optional<double> value = metadata().Real(key);
  if (value && !std::isfinite(*value)) Refuse(key, "is no finite number");
  return value;
}

std::optional<bool> GgufKeyReader::Bool(const std::string& name) {
  return metadata().Bool(Key(name));
}

const std::string* GgufKeyReader::Text(const std::string& name) {
  return metadata().Text(Key(name));
}

void GgufKeyReader::RefuseUnknown() const {
  // How converters order rows; there is one order for each architecture.
  static const std::set<std::string> kHarmless = {"llama.tensor_data_layout",
                                                  "falcon.tensor_data_layout"};
  const std::string prefix = std::string(family_.name) + ".";
  for (const GgufEntry& entry : metadata().entries()) {
    if (!entry.key.starts_with(prefix) || known_.contains(entry.key)) continue;
    if (kHarmless.contains(entry.key)) continue;
    Refuse(entry.key, "is not known: it may change what the model computes");
  }
}

}  // namespace quantmill
