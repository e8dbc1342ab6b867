// Internal to chat templates: the syntax tree of a Jinja template and its interpreter.
#ifndef QUANTMILL_FORMATS_TOKENIZER_JINJA_H_
#define QUANTMILL_FORMATS_TOKENIZER_JINJA_H_

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quantmill::jinja {

using Json = nlohmann::ordered_json;

// A value: JSON data (null is Jinja's none) or undefined.
struct Value {
  Json data;
  bool defined = true;
  static Value Undefined() { return {nullptr, false}; }
};

enum class TokenKind { kText, kName, kString, kInteger, kOperator, kEnd };

// A piece of the template. Operators include the tags' own: {{ }} {% %}.
struct Token {
  TokenKind kind;
  std::string text;  // a string without quotes, with its escapes done
  int line;
};

enum class ExprKind {
  kLiteral,      // value
  kName,         // text
  kList,         // args
  kDict,         // args: key, value, key, value, ...
  kUnary,        // text, args[0]
  kBinary,       // text, args[0], args[1]
  kConditional,  // args: condition, then, else (maybe null)
  kAttribute,    // args[0] . text
  kSubscript,    // args[0] [ args[1] ]
  kSlice,        // args[0] [ args[1] : args[2] : args[3] ], each maybe null
  kCall,         // args[0] ( args[1..], named )
  kFilter,       // args[0] | text ( args[1..], named )
  kTest          // args[0] is text ( args[1..] )
};

struct Expr {
  ExprKind kind;
  int line;
  std::string text;
  Json value;
  std::vector<std::unique_ptr<Expr>> args;
  std::vector<std::pair<std::string, std::unique_ptr<Expr>>> named;
};
using ExprPtr = std::unique_ptr<Expr>;

enum class NodeKind { kText, kOutput, kIf, kFor, kSet, kSetBlock, kGroup, kBreak, kContinue };

// if: expr, body, other. for: names in expr, filter, body, other. set: names[0] (. names[1]) = expr
// or the text of body.
struct Node {
  NodeKind kind;
  int line;
  std::string text;
  ExprPtr expr;
  ExprPtr filter;
  std::vector<std::string> names;
  std::vector<Node> body;
  std::vector<Node> other;
};

struct Template {
  std::string where;
  std::vector<Node> nodes;
};

// All three throw Error(kBadInput, where) whose text starts with "line N: ".
std::vector<Token> Tokenize(std::string_view source, const std::string& where);
std::vector<Node> Parse(std::vector<Token> tokens, const std::string& where);
std::string Render(const Template& source, std::map<std::string, Value> globals,
                   const std::optional<std::tm>& now);

[[noreturn]] void Fail(const std::string& where, int line, const std::string& what);

// Python's truth and text of a value. ToText throws for lists and dicts.
bool IsTrue(const Value& value);
std::string ToText(const Value& value, const std::string& where, int line);

// What a filter, test or method is applied to, and with what.
struct Arguments {
  std::vector<Value> positional;
  std::map<std::string, Value> named;
  const std::string& where;
  int line;
};

// Throw Error for names and argument types that are not supported.
Value ApplyFilter(const std::string& name, const Value& value, const Arguments& arguments);
bool ApplyTest(const std::string& name, const Value& value, const Arguments& arguments);
Value CallMethod(const std::string& name, const Value& value, const Arguments& arguments);

}  // namespace quantmill::jinja

#endif  // QUANTMILL_FORMATS_TOKENIZER_JINJA_H_
