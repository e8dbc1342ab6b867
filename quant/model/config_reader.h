// Typed access to config.json: a missing or mistyped key is an Error naming file and key.
#ifndef QUANTMILL_QUANT_MODEL_CONFIG_READER_H_
#define QUANTMILL_QUANT_MODEL_CONFIG_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace quantmill {

// Borrows the JSON. A key whose value is null counts as absent, as transformers reads it.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& json, std::string where)
      : json_(json), where_(std::move(where)) {}

  bool Has(const std::string& key) const;
  // Positive integers up to 2^40 (sizes, counts); Error(kBadInput) otherwise.
  int64_t Size(const std::string& key) const;
  int64_t SizeOr(const std::string& key, int64_t fallback) const;
  double Number(const std::string& key) const;  // finite
  double NumberOr(const std::string& key, double fallback) const;
  bool BoolOr(const std::string& key, bool fallback) const;
  std::string TextOr(const std::string& key, const std::string& fallback) const;
  // A nested object, or nothing.
  std::optional<ConfigReader> Child(const std::string& key) const;
  const nlohmann::json& json() const { return json_; }
  const std::string& where() const { return where_; }

  [[noreturn]] void Fail(const std::string& key, const std::string& message) const;

 private:
  const nlohmann::json& json_;
  std::string where_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_CONFIG_READER_H_
