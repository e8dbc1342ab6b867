// A JSON object of the configuration, read key by key. Private to formats/.
#ifndef QUANTMILL_FORMATS_CONFIG_FIELD_H_
#define QUANTMILL_FORMATS_CONFIG_FIELD_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>

namespace quantmill {

// Refuses, with the path of the key, what it does not like. The JSON and `where` must outlive it.
class ConfigField {
 public:
  // Throws unless `value` is an object.
  ConfigField(const nlohmann::json& value, std::string path, const std::string& where);

  // Error(kBadInput) at this object, or at one of its keys.
  [[noreturn]] void Fail(const std::string& what) const;
  [[noreturn]] void Fail(const std::string& key, const std::string& what) const;

  const std::string& path() const { return path_; }
  // Null if the key is absent or its value is null, which means the same everywhere here.
  const nlohmann::json* Get(const std::string& key) const;
  // Lower case, as the library reads its enumerations.
  std::string Text(const std::string& key, const std::string& otherwise) const;
  bool Bool(const std::string& key, bool otherwise) const;
  std::optional<int64_t> Integer(const std::string& key) const;
  // Absent, null, or an empty object or list; anything else asks for `feature`.
  void MustBeEmpty(const std::string& key, const std::string& feature) const;
  void AllowOnly(const std::set<std::string>& keys) const;

 private:
  const nlohmann::json& value_;
  std::string path_;
  const std::string& where_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_CONFIG_FIELD_H_
