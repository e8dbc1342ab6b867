#include "formats/gguf/metadata.h"

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kNames[] = {"U8",   "I8",     "U16",   "I16", "U32", "I32", "F32",
                                       "BOOL", "STRING", "ARRAY", "U64", "I64", "F64"};
static_assert(std::size(kNames) == kGgufValueTypes);
// The index of an alternative is its type number.
static_assert(std::variant_size_v<GgufValue> == kGgufValueTypes);
static_assert(std::variant_size_v<GgufArray> == kGgufValueTypes - 1);

std::string Describe(const GgufValue& value) {
  const GgufValueType type = TypeOf(value);
  if (type != GgufValueType::kArray) return std::string(NameOf(type));
  return "ARRAY of " + std::string(NameOf(ElementTypeOf(std::get<GgufArray>(value))));
}

}  // namespace

std::string_view NameOf(GgufValueType type) {
  Check(static_cast<uint32_t>(type) < kGgufValueTypes, "no such GGUF value type");
  return kNames[static_cast<size_t>(type)];
}

GgufValueType TypeOf(const GgufValue& value) { return static_cast<GgufValueType>(value.index()); }

GgufValueType ElementTypeOf(const GgufArray& array) {
  const auto index = static_cast<uint32_t>(array.index());
  // No alternative stands for arrays.
  return static_cast<GgufValueType>(
      index < static_cast<uint32_t>(GgufValueType::kArray) ? index : index + 1);
}

GgufMetadata::GgufMetadata(std::vector<GgufEntry> entries, std::string where)
    : entries_(std::move(entries)), by_key_(entries_.size()), where_(std::move(where)) {
  std::iota(by_key_.begin(), by_key_.end(), size_t{0});
  std::sort(by_key_.begin(), by_key_.end(),
            [&](size_t a, size_t b) { return entries_[a].key < entries_[b].key; });
}

const GgufValue* GgufMetadata::Find(std::string_view key) const {
  const auto found = std::lower_bound(
      by_key_.begin(), by_key_.end(), key,
      [&](size_t index, std::string_view wanted) { return entries_[index].key < wanted; });
  return found == by_key_.end() || entries_[*found].key != key ? nullptr : &entries_[*found].value;
}

std::optional<uint64_t> GgufMetadata::Unsigned(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& held) -> std::optional<uint64_t> {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (held >= 0) return static_cast<uint64_t>(held);
        }
        Fail(key, "an integer of 0 or more");
      },
      *value);
}

std::optional<double> GgufMetadata::Real(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* single = std::get_if<float>(value)) return double{*single};
  if (const auto* wide = std::get_if<double>(value)) return *wide;
  Fail(key, "a floating point number");
}

std::optional<bool> GgufMetadata::Bool(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* held = std::get_if<bool>(value)) return *held;
  Fail(key, "a BOOL");
}

const std::string* GgufMetadata::Text(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return nullptr;
  if (const auto* held = std::get_if<std::string>(value)) return held;
  Fail(key, "a STRING");
}

void GgufMetadata::Fail(std::string_view key, const std::string& wanted) const {
  const GgufValue* value = Find(key);
  std::string held = "is missing";
  if (value != nullptr) {
    held = "is of type " + Describe(*value);
    std::visit(
        [&](const auto& number) {
          using T = std::decay_t<decltype(number)>;
          if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) {
            held += " (" + std::to_string(number) + ")";
          }
        },
        *value);
  }
  throw Error(ErrorCode::kBadInput, where_,
              "metadata key '" + std::string(key) + "' " + held + "; it should be " + wanted);
}

}  // namespace quantmill
