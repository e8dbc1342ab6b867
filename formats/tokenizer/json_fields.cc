#include "formats/tokenizer/json_fields.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {

using nlohmann::json;

JsonFields::JsonFields(const json& value, std::string where)
    : value_(value), where_(std::move(where)) {
  if (!value_.is_object()) Refuse(std::string("must be an object, not ") + value_.type_name());
}

void JsonFields::Refuse(const std::string& what) const {
  throw Error(ErrorCode::kBadInput, where_, what);
}

const json* JsonFields::OptionalAny(const char* name) {
  used_.insert(name);
  const auto found = value_.find(name);
  return found == value_.end() || found->is_null() ? nullptr : &*found;
}

const json& JsonFields::Any(const char* name) {
  const json* found = OptionalAny(name);
  if (found == nullptr) Refuse(std::string("has no field \"") + name + "\"");
  return *found;
}

std::optional<std::string> JsonFields::OptionalString(const char* name) {
  const json* found = OptionalAny(name);
  if (found == nullptr) return std::nullopt;
  if (!found->is_string()) Refuse(std::string("field \"") + name + "\" must be a string");
  return found->get<std::string>();
}

std::optional<bool> JsonFields::OptionalBool(const char* name) {
  const json* found = OptionalAny(name);
  if (found == nullptr) return std::nullopt;
  if (!found->is_boolean()) Refuse(std::string("field \"") + name + "\" must be true or false");
  return found->get<bool>();
}

std::string JsonFields::String(const char* name) {
  static_cast<void>(Any(name));
  return *OptionalString(name);
}

bool JsonFields::Bool(const char* name) {
  static_cast<void>(Any(name));
  return *OptionalBool(name);
}

int64_t JsonFields::Integer(const char* name) {
  const json& found = Any(name);
  const bool fits = found.is_number_integer() &&
                    (!found.is_number_unsigned() ||
                     found.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()});
  if (!fits) Refuse(std::string("field \"") + name + "\" must be an integer");
  return found.get<int64_t>();
}

const json& JsonFields::Array(const char* name) {
  const json& found = Any(name);
  if (!found.is_array()) Refuse(std::string("field \"") + name + "\" must be an array");
  return found;
}

std::string JsonFields::CodePoint(const char* name) {
  std::string text = String(name);
  if (CountCodePoints(text) != 1) {
    Refuse(std::string("field \"") + name + "\" must be one character");
  }
  return text;
}

void JsonFields::Finish() const {
  for (const auto& [name, value] : value_.items()) {
    if (used_.count(name) == 0) Refuse("unknown field \"" + name + "\"");
  }
}

}  // namespace quantmill
