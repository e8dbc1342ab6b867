#include "formats/config_field.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {

using nlohmann::json;

ConfigField::ConfigField(const json& value, std::string path, const std::string& where)
    : value_(value), path_(std::move(path)), where_(where) {
  if (!value_.is_object()) Fail("must be an object");
}

void ConfigField::Fail(const std::string& what) const {
  throw Error(ErrorCode::kBadInput, where_, path_ + ": " + what);
}

void ConfigField::Fail(const std::string& key, const std::string& what) const {
  throw Error(ErrorCode::kBadInput, where_, path_ + "." + key + ": " + what);
}

const json* ConfigField::Get(const std::string& key) const {
  const auto found = value_.find(key);
  return found == value_.end() || found->is_null() ? nullptr : &*found;
}

std::string ConfigField::Text(const std::string& key, const std::string& otherwise) const {
  const json* text = Get(key);
  if (text == nullptr) return otherwise;
  if (!text->is_string()) Fail(key, "must be a string, not " + text->dump());
  auto lower = text->get<std::string>();
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

bool ConfigField::Bool(const std::string& key, bool otherwise) const {
  const json* flag = Get(key);
  if (flag == nullptr) return otherwise;
  if (!flag->is_boolean()) Fail(key, "must be true or false, not " + flag->dump());
  return flag->get<bool>();
}

std::optional<int64_t> ConfigField::Integer(const std::string& key) const {
  const json* number = Get(key);
  if (number == nullptr) return std::nullopt;
  if (!number->is_number_integer()) Fail(key, "must be a whole number, not " + number->dump());
  return number->get<int64_t>();
}

void ConfigField::MustBeEmpty(const std::string& key, const std::string& feature) const {
  const json* value = Get(key);
  if (value != nullptr && !value->empty()) Fail(key, feature + " cannot be read");
}

void ConfigField::AllowOnly(const std::set<std::string>& keys) const {
  for (const auto& [key, unused] : value_.items()) {
    if (!keys.contains(key)) Fail(key, "unknown key (the format's own library refuses it too)");
  }
}

}  // namespace quantmill
