// Strict access to the fields of one JSON object.
#ifndef QUANTMILL_FORMATS_TOKENIZER_JSON_FIELDS_H_
#define QUANTMILL_FORMATS_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>

namespace quantmill {

// Every field is asked for by name and type; Finish refuses those that nobody asked for, so that a
// file never means more than was read. Errors are Error(kBadInput) whose `where` is the file and
// the path of the object. Borrows the JSON value.
class JsonFields {
 public:
  // Throws unless `value` is an object. `where`: "file: path".
  JsonFields(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }

  // Required fields.
  std::string String(const char* name);
  bool Bool(const char* name);
  int64_t Integer(const char* name);
  const nlohmann::json& Array(const char* name);
  const nlohmann::json& Any(const char* name);
  // Exactly one code point.
  std::string CodePoint(const char* name);

  // Optional ones; null counts as absent.
  std::optional<std::string> OptionalString(const char* name);
  std::optional<bool> OptionalBool(const char* name);
  // Null when absent or null.
  const nlohmann::json* OptionalAny(const char* name);

  // Accepts a field whose value does not matter here.
  void Ignore(const char* name) { used_.insert(name); }

  // Throws when the object has any other field.
  void Finish() const;

  [[noreturn]] void Refuse(const std::string& what) const;

 private:
  const nlohmann::json& value_;
  std::string where_;
  std::set<std::string> used_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_JSON_FIELDS_H_
