// Filters, tests and methods of Jinja templates.
#include <algorithm>
#include <cctype>
#include <utility>

#include "formats/tokenizer/jinja.h"
#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/unicode.h"

namespace quantmill::jinja {
namespace {

[[noreturn]] void Refuse(const Arguments& arguments, const std::string& what) {
  Fail(arguments.where, arguments.line, what);
}

void ExpectCount(const std::string& name, const Arguments& arguments, size_t least, size_t most) {
  const size_t count = arguments.positional.size();
  if (count < least || count > most || !arguments.named.empty()) {
    Refuse(arguments, name + " with these arguments is not supported");
  }
}

// An argument that must be a text.
std::string TextArgument(const std::string& name, const Arguments& arguments, size_t index) {
  const Value& value = arguments.positional[index];
  if (!value.defined || !value.data.is_string()) Refuse(arguments, name + " needs a text here");
  return value.data.get<std::string>();
}

// Python's str.isspace for the characters of a template: White_Space and four separators.
bool IsPythonSpace(char32_t c) { return IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F); }

// Python's strip: of white space, or of the code points of `characters`.
std::string Strip(std::string_view text, const std::optional<std::string>& characters, bool left,
                  bool right) {
  const auto drops = [&](char32_t c) {
    if (!characters) return IsPythonSpace(c);
    for (size_t pos = 0; pos < characters->size();) {
      if (NextCodePoint(*characters, pos) == c) return true;
    }
    return false;
  };
  size_t begin = 0;
  size_t end = text.size();
  for (size_t next = 0; left && begin < end; begin = next) {
    if (!drops(NextCodePoint(text, next))) break;
  }
  for (size_t start = 0; right && end > begin; end = start) {
    if (!drops(PreviousCodePoint(text, end, start))) break;
  }
  return std::string(text.substr(begin, end - begin));
}

std::optional<std::string> OptionalText(const std::string& name, const Arguments& arguments) {
  ExpectCount(name, arguments, 0, 1);
  if (arguments.positional.empty()) return std::nullopt;
  return TextArgument(name, arguments, 0);
}

// Case changes need tables that are not here, so only ASCII texts are accepted.
std::string ChangeCase(const std::string& name, std::string text, const Arguments& arguments) {
  bool first = true;
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) Refuse(arguments, name + " of a text outside ASCII is not supported");
    const bool up =
        name == "upper" || (name == "capitalize" && first) || (name == "title" && first);
    c = static_cast<char>(up ? std::toupper(byte) : std::tolower(byte));
    first = name == "title" ? std::isalpha(byte) == 0 : false;
  }
  return text;
}

bool IsCaseChange(const std::string& name) {
  return name == "upper" || name == "lower" || name == "capitalize" || name == "title";
}

// json.dumps(value, ensure_ascii=False), Python's spacing.
void DumpJson(const Json& value, std::string& out) {
  if (value.is_array() || value.is_object()) {
    out += value.is_array() ? '[' : '{';
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!std::exchange(first, false)) out += ", ";
      if (value.is_object()) out += Json(key).dump() + ": ";
      DumpJson(item, out);
    }
    out += value.is_array() ? ']' : '}';
  } else {
    out += value.dump();
  }
}

std::string Join(const Value& value, const Arguments& arguments) {
  ExpectCount("join", arguments, 0, 1);
  const std::string separator =
      arguments.positional.empty() ? "" : TextArgument("join", arguments, 0);
  if (!value.data.is_array()) Refuse(arguments, "join needs a list");
  std::string text;
  for (size_t i = 0; i < value.data.size(); ++i) {
    if (i > 0) text += separator;
    text += ToText({value.data[i]}, arguments.where, arguments.line);
  }
  return text;
}

Json Items(const Json& object) {
  Json items = Json::array();
  for (const auto& [key, item] : object.items()) items.push_back(Json::array({key, item}));
  return items;
}

Value Length(const Value& value, const Arguments& arguments) {
  if (!value.defined) return {0};
  if (value.data.is_string()) return {CountCodePoints(value.data.get_ref<const std::string&>())};
  if (value.data.is_array() || value.data.is_object()) return {value.data.size()};
  Refuse(arguments, "length of a value without one");
}

Value Default(const Value& value, const Arguments& arguments) {
  ExpectCount("default", arguments, 1, 2);
  const bool also_false = arguments.positional.size() == 2 && IsTrue(arguments.positional[1]);
  const bool replace = !value.defined || (also_false && !IsTrue(value));
  return replace ? arguments.positional[0] : value;
}

Value EndOfList(const std::string& name, const Value& value, const Arguments& arguments) {
  ExpectCount(name, arguments, 0, 0);
  if (!value.data.is_array()) Refuse(arguments, name + " needs a list");
  if (value.data.empty()) return Value::Undefined();
  return {name == "first" ? value.data.front() : value.data.back()};
}

// str.split with a separator.
Value SplitText(const std::string& text, const Arguments& arguments) {
  ExpectCount("split", arguments, 1, 1);
  const std::string separator = TextArgument("split", arguments, 0);
  if (separator.empty()) Refuse(arguments, "split with an empty separator");
  Value parts{Json::array()};
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string::npos;
       at = text.find(separator, begin)) {
    parts.data.push_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.data.push_back(text.substr(begin));
  return parts;
}

Value Replace(const std::string& text, const Arguments& arguments) {
  ExpectCount("replace", arguments, 2, 2);
  const std::string from = TextArgument("replace", arguments, 0);
  if (from.empty()) Refuse(arguments, "replace of an empty text");
  return {ReplaceAll(text, from, TextArgument("replace", arguments, 1))};
}

Value TextMethod(const std::string& name, const std::string& text, const Arguments& arguments) {
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    return {Strip(text, OptionalText(name, arguments), name != "rstrip", name != "lstrip")};
  }
  if (name == "startswith" || name == "endswith") {
    ExpectCount(name, arguments, 1, 1);
    const std::string part = TextArgument(name, arguments, 0);
    if (part.size() > text.size()) return {false};
    return {text.compare(name == "startswith" ? 0 : text.size() - part.size(), part.size(), part) ==
            0};
  }
  if (name == "split") return SplitText(text, arguments);
  if (name == "replace") return Replace(text, arguments);
  if (IsCaseChange(name)) {
    ExpectCount(name, arguments, 0, 0);
    return {ChangeCase(name, text, arguments)};
  }
  Refuse(arguments, "the method " + name + " of a text is not supported");
}

}  // namespace

bool IsTrue(const Value& value) {
  if (!value.defined || value.data.is_null()) return false;
  if (value.data.is_boolean()) return value.data.get<bool>();
  if (value.data.is_number_integer()) return value.data.get<int64_t>() != 0;
  if (value.data.is_string()) return !value.data.get_ref<const std::string&>().empty();
  return !value.data.empty();
}

std::string ToText(const Value& value, const std::string& where, int line) {
  if (!value.defined) return "";
  if (value.data.is_null()) return "None";
  if (value.data.is_boolean()) return value.data.get<bool>() ? "True" : "False";
  if (value.data.is_string()) return value.data.get<std::string>();
  if (value.data.is_number_integer()) return std::to_string(value.data.get<int64_t>());
  Fail(where, line, "a list or dict as text is not supported");
}

Value ApplyFilter(const std::string& name, const Value& value, const Arguments& arguments) {
  if (name == "default" || name == "d") return Default(value, arguments);
  if (name == "length" || name == "count") {
    ExpectCount(name, arguments, 0, 0);
    return Length(value, arguments);
  }
  if (!value.defined) Refuse(arguments, "the filter " + name + " on an undefined value");
  if (name == "safe" || name == "string") {
    ExpectCount(name, arguments, 0, 0);
    return {ToText(value, arguments.where, arguments.line)};
  }
  if (name == "tojson") {
    ExpectCount(name, arguments, 0, 0);
    std::string text;
    DumpJson(value.data, text);
    return {text};
  }
  if (name == "join") return {Join(value, arguments)};
  if (name == "first" || name == "last") return EndOfList(name, value, arguments);
  if (name == "list") {
    ExpectCount(name, arguments, 0, 0);
    if (!value.data.is_array()) Refuse(arguments, "list of a value that is none");
    return value;
  }
  if (name == "items") {
    ExpectCount(name, arguments, 0, 0);
    if (!value.data.is_object()) Refuse(arguments, "items of a value that is no dict");
    return {Items(value.data)};
  }
  // The others work on texts, to which Jinja converts what they get.
  if (name == "trim" || name == "replace" || IsCaseChange(name)) {
    const std::string text = ToText(value, arguments.where, arguments.line);
    return TextMethod(name == "trim" ? "strip" : name, text, arguments);
  }
  Refuse(arguments, "the filter " + name + " is not supported");
}

bool ApplyTest(const std::string& name, const Value& value, const Arguments& arguments) {
  ExpectCount("the test " + name, arguments, 0, 0);
  const Json& data = value.data;
  if (name == "defined") return value.defined;
  if (name == "undefined") return !value.defined;
  if (name == "none") return value.defined && data.is_null();
  if (name == "string") return value.defined && data.is_string();
  if (name == "mapping") return value.defined && data.is_object();
  if (name == "boolean") return value.defined && data.is_boolean();
  if (name == "integer") return value.defined && data.is_number_integer();
  // Python's bool is a number.
  if (name == "number") return value.defined && (data.is_number() || data.is_boolean());
  if (name == "true") return value.defined && data.is_boolean() && data.get<bool>();
  if (name == "false") return value.defined && data.is_boolean() && !data.get<bool>();
  if (name == "iterable" || name == "sequence") {
    return !value.defined || data.is_string() || data.is_array() || data.is_object();
  }
  if (name == "odd" || name == "even") {
    if (!value.defined || !data.is_number_integer()) Refuse(arguments, name + " of no integer");
    return (data.get<int64_t>() % 2 != 0) == (name == "odd");
  }
  Refuse(arguments, "the test " + name + " is not supported");
}

Value CallMethod(const std::string& name, const Value& value, const Arguments& arguments) {
  if (value.data.is_string()) {
    return TextMethod(name, value.data.get_ref<const std::string&>(), arguments);
  }
  if (value.data.is_object() && name == "items") {
    ExpectCount(name, arguments, 0, 0);
    return {Items(value.data)};
  }
  if (value.data.is_object() && name == "get") {
    ExpectCount(name, arguments, 1, 2);
    const auto found = value.data.find(TextArgument(name, arguments, 0));
    if (found != value.data.end()) return {*found};
    return arguments.positional.size() == 2 ? arguments.positional[1] : Value{nullptr};
  }
  Refuse(arguments, "the method " + name + " is not supported");
}

}  // namespace quantmill::jinja
