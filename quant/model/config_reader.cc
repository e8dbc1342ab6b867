#include "quant/model/config_reader.h"

#include <cmath>

#include "kernels/core/error.h"

namespace quantmill {

bool ConfigReader::Has(const std::string& key) const {
  const auto it = json_.find(key);
  return it != json_.end() && !it->is_null();
}

void ConfigReader::Fail(const std::string& key, const std::string& message) const {
  throw Error(ErrorCode::kBadInput, where_, "key '" + key + "': " + message);
}

int64_t ConfigReader::Size(const std::string& key) const {
  if (!Has(key)) Fail(key, "missing");
  const nlohmann::json& value = json_.at(key);
  constexpr int64_t kLimit = int64_t{1} << 40;
  if (!value.is_number_integer()) Fail(key, "expected an integer, found " + value.dump());
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(kLimit)) {
    Fail(key, "out of range: " + value.dump());
  }
  const auto number = value.get<int64_t>();
  if (number <= 0 || number > kLimit) Fail(key, "out of range: " + value.dump());
  return number;
}

int64_t ConfigReader::SizeOr(const std::string& key, int64_t fallback) const {
  return Has(key) ? Size(key) : fallback;
}

double ConfigReader::Number(const std::string& key) const {
  if (!Has(key)) Fail(key, "missing");
  const nlohmann::json& value = json_.at(key);
  if (!value.is_number()) Fail(key, "expected a number, found " + value.dump());
  const auto number = value.get<double>();
  if (!std::isfinite(number)) Fail(key, "not finite");
  return number;
}

double ConfigReader::NumberOr(const std::string& key, double fallback) const {
  return Has(key) ? Number(key) : fallback;
}

bool ConfigReader::BoolOr(const std::string& key, bool fallback) const {
  if (!Has(key)) return fallback;
  if (!json_.at(key).is_boolean()) Fail(key, "expected true or false");
  return json_.at(key).get<bool>();
}

std::string ConfigReader::TextOr(const std::string& key, const std::string& fallback) const {
  if (!Has(key)) return fallback;
  if (!json_.at(key).is_string()) Fail(key, "expected a string");
  return json_.at(key).get<std::string>();
}

std::optional<ConfigReader> ConfigReader::Child(const std::string& key) const {
  if (!Has(key)) return std::nullopt;
  if (!json_.at(key).is_object()) Fail(key, "expected an object");
  return ConfigReader(json_.at(key), where_ + ": " + key);
}

}  // namespace quantmill
