#include <algorithm>
#include <array>
#include <set>

#include "formats/tokenizer/jinja.h"

namespace quantmill::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;
constexpr int64_t kMaxInteger = int64_t{1} << 40;  // sums and products stay far from overflow

struct Scope {
  std::map<std::string, Value> names;
  std::set<std::string> namespaces;  // names that hold a namespace()
};

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const std::string& where, std::map<std::string, Value> globals,
              const std::optional<std::tm>& now)
      : where_(where), now_(now) {
    scopes_.push_back({std::move(globals), {}});
  }

  std::string Run(const std::vector<Node>& nodes) {
    static_cast<void>(Execute(nodes));
    return std::move(out_);
  }

 private:
  [[noreturn]] void Refuse(int line, const std::string& what) const { Fail(where_, line, what); }

  Flow Execute(const std::vector<Node>& nodes) {
    for (const Node& node : nodes) {
      const Flow flow = Execute(node);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow Execute(const Node& node) {
    switch (node.kind) {
      case NodeKind::kText:
        out_ += node.text;
        return Flow::kNext;
      case NodeKind::kOutput:
        out_ += ToText(Evaluate(*node.expr), where_, node.line);
        return Flow::kNext;
      case NodeKind::kIf:
        return Execute(IsTrue(Evaluate(*node.expr)) ? node.body : node.other);
      case NodeKind::kFor:
        return For(node);
      case NodeKind::kSet:
        Set(node);
        return Flow::kNext;
      case NodeKind::kSetBlock:
        SetBlock(node);
        return Flow::kNext;
      case NodeKind::kGroup:
        return Execute(node.body);
      case NodeKind::kBreak:
        return Flow::kBreak;
      case NodeKind::kContinue:
        return Flow::kContinue;
    }
    Refuse(node.line, "unknown statement");
  }

  void Set(const Node& node) {
    const std::string& name = node.names[0];
    if (node.names.size() == 1) {
      Scope& scope = scopes_.back();
      scope.namespaces.erase(name);
      const Expr& expr = *node.expr;
      if (expr.kind == ExprKind::kCall && expr.args[0]->kind == ExprKind::kName &&
          expr.args[0]->text == "namespace") {
        scope.names[name] = Namespace(expr);
        scope.namespaces.insert(name);
      } else {
        scope.names[name] = Evaluate(expr);
      }
      return;
    }
    Value value = Evaluate(*node.expr);
    if (!value.defined) Refuse(node.line, "a namespace attribute set to an undefined value");
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (scope->names.count(name) == 0) continue;
      if (scope->namespaces.count(name) == 0) break;
      scope->names[name].data[node.names[1]] = std::move(value.data);
      return;
    }
    Refuse(node.line, name + " is not a namespace");
  }

  Value Namespace(const Expr& call) {
    if (call.args.size() > 1) Refuse(call.line, "namespace takes named arguments only");
    Value value{Json::object()};
    for (const auto& [name, expr] : call.named) value.data[name] = Data(*expr);
    return value;
  }

  void SetBlock(const Node& node) {
    std::string outer = std::exchange(out_, {});
    scopes_.emplace_back();
    const Flow flow = Execute(node.body);
    scopes_.pop_back();
    if (flow != Flow::kNext) Refuse(node.line, "break or continue inside a set block");
    scopes_.back().names[node.names[0]] = {std::exchange(out_, std::move(outer))};
  }

  Flow For(const Node& node) {
    Value items = Evaluate(*node.expr);
    if (!items.defined) items.data = Json::array();  // Jinja loops over undefined zero times
    if (items.data.is_object()) items.data = Keys(items.data);
    if (!items.data.is_array()) Refuse(node.line, "only lists and dicts can be looped over");
    if (node.filter) Filter(node, items.data);
    const size_t count = items.data.size();
    if (count == 0) return Execute(node.other);
    for (size_t i = 0; i < count; ++i) {
      scopes_.emplace_back();
      Bind(node, items.data[i]);
      if (node.names[0] != "loop") scopes_.back().names["loop"] = Loop(items.data, i);
      const Flow flow = Execute(node.body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    return Flow::kNext;
  }

  static Json Keys(const Json& object) {
    Json keys = Json::array();
    for (const auto& [key, value] : object.items()) keys.push_back(key);
    return keys;
  }

  void Bind(const Node& node, const Json& item) {
    auto& names = scopes_.back().names;
    if (node.names.size() == 1) {
      names[node.names[0]] = {item};
      return;
    }
    if (!item.is_array() || item.size() != node.names.size()) {
      Refuse(node.line, "the items do not have " + std::to_string(node.names.size()) + " parts");
    }
    for (size_t i = 0; i < node.names.size(); ++i) names[node.names[i]] = {item[i]};
  }

  void Filter(const Node& node, Json& items) {
    Json kept = Json::array();
    for (const Json& item : items) {
      scopes_.emplace_back();
      Bind(node, item);
      if (IsTrue(Evaluate(*node.filter))) kept.push_back(item);
      scopes_.pop_back();
    }
    items = std::move(kept);
  }

  static Value Loop(const Json& items, size_t i) {
    const size_t count = items.size();
    Json loop = {
        {"index", i + 1},  {"index0", i},     {"revindex", count - i}, {"revindex0", count - i - 1},
        {"length", count}, {"first", i == 0}, {"last", i + 1 == count}};
    if (i > 0) loop["previtem"] = items[i - 1];
    if (i + 1 < count) loop["nextitem"] = items[i + 1];
    return {std::move(loop)};
  }

  Json Data(const Expr& expr) {
    Value value = Evaluate(expr);
    if (!value.defined) Refuse(expr.line, "an undefined value cannot be used here");
    return std::move(value.data);
  }

  Value Evaluate(const Expr& expr) {
    switch (expr.kind) {
      case ExprKind::kLiteral:
        return {expr.value};
      case ExprKind::kName:
        return Lookup(expr.text);
      case ExprKind::kList: {
        Value list{Json::array()};
        for (const ExprPtr& item : expr.args) list.data.push_back(Data(*item));
        return list;
      }
      case ExprKind::kDict:
        return Dict(expr);
      case ExprKind::kUnary:
        return Unary(expr);
      case ExprKind::kBinary:
        return Binary(expr);
      case ExprKind::kConditional:
        if (IsTrue(Evaluate(*expr.args[0]))) return Evaluate(*expr.args[1]);
        return expr.args[2] ? Evaluate(*expr.args[2]) : Value::Undefined();
      case ExprKind::kAttribute:
        return Attribute(expr);
      case ExprKind::kSubscript:
        return Subscript(expr);
      case ExprKind::kSlice:
        return Slice(expr);
      case ExprKind::kCall:
        return Call(expr);
      case ExprKind::kFilter: {
        const Value base = Evaluate(*expr.args[0]);
        return ApplyFilter(expr.text, base, CallArguments(expr));
      }
      case ExprKind::kTest: {
        const Value base = Evaluate(*expr.args[0]);
        return {ApplyTest(expr.text, base, CallArguments(expr))};
      }
    }
    Refuse(expr.line, "unknown expression");
  }

  Value Lookup(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->names.find(name);
      if (found != scope->names.end()) return found->second;
    }
    // Functions exist, but are no data: "is defined" must still hold.
    constexpr std::array<const char*, 4> kFunctions = {"raise_exception", "strftime_now",
                                                       "namespace", "range"};
    for (const char* function : kFunctions) {
      if (name == function) return {Json::object()};
    }
    return Value::Undefined();
  }

  Value Dict(const Expr& expr) {
    Value dict{Json::object()};
    for (size_t i = 0; i < expr.args.size(); i += 2) {
      const Json key = Data(*expr.args[i]);
      if (!key.is_string()) Refuse(expr.line, "only texts can be keys");
      dict.data[key.get<std::string>()] = Data(*expr.args[i + 1]);
    }
    return dict;
  }

  Arguments CallArguments(const Expr& expr) {
    Arguments arguments{{}, {}, where_, expr.line};
    for (size_t i = 1; i < expr.args.size(); ++i) {
      arguments.positional.push_back(Evaluate(*expr.args[i]));
    }
    for (const auto& [name, value] : expr.named) arguments.named[name] = Evaluate(*value);
    return arguments;
  }

  Value Unary(const Expr& expr) {
    if (expr.text == "not") return {!IsTrue(Evaluate(*expr.args[0]))};
    const int64_t value = Integer(Evaluate(*expr.args[0]), expr.line);
    return {expr.text == "-" ? -value : value};
  }

  int64_t Integer(const Value& value, int line) const {
    if (!value.defined || !value.data.is_number_integer()) Refuse(line, "expected an integer");
    const auto number = value.data.get<int64_t>();
    if (number > kMaxInteger || number < -kMaxInteger) Refuse(line, "an integer is too large");
    return number;
  }

  Value Binary(const Expr& expr) {
    const std::string& op = expr.text;
    if (op == "and" || op == "or") {
      Value left = Evaluate(*expr.args[0]);
      return IsTrue(left) == (op == "or") ? left : Evaluate(*expr.args[1]);
    }
    const Value left = Evaluate(*expr.args[0]);
    const Value right = Evaluate(*expr.args[1]);
    if (op == "==") return {Equal(left, right, expr.line)};
    if (op == "!=") return {!Equal(left, right, expr.line)};
    if (op == "in") return {Contains(right, left, expr.line)};
    if (op == "not in") return {!Contains(right, left, expr.line)};
    if (op == "~") return {ToText(left, where_, expr.line) + ToText(right, where_, expr.line)};
    if (op == "<" || op == "<=" || op == ">" || op == ">=")
      return {Less(op, left, right, expr.line)};
    return {Arithmetic(op, left, right, expr.line)};
  }

  bool Equal(const Value& left, const Value& right, int line) const {
    if (!left.defined || !right.defined) return left.defined == right.defined;
    const bool mixed = (left.data.is_boolean() && right.data.is_number()) ||
                       (left.data.is_number() && right.data.is_boolean());
    if (mixed) Refuse(line, "comparing a boolean with a number is not supported");
    return left.data == right.data;
  }

  bool Contains(const Value& container, const Value& item, int line) const {
    if (!container.defined) return false;  // Jinja's undefined is an empty list
    if (!item.defined) Refuse(line, "an undefined value cannot be looked for");
    if (container.data.is_string() && item.data.is_string()) {
      return container.data.get_ref<const std::string&>().find(
                 item.data.get_ref<const std::string&>()) != std::string::npos;
    }
    if (container.data.is_object() && item.data.is_string()) {
      return container.data.contains(item.data.get_ref<const std::string&>());
    }
    if (!container.data.is_array()) Refuse(line, "\"in\" needs a text, a list or a dict");
    return std::any_of(container.data.begin(), container.data.end(),
                       [&](const Json& element) { return Equal({element}, item, line); });
  }

  bool Less(const std::string& op, const Value& left, const Value& right, int line) const {
    int order = 0;
    if (left.defined && right.defined && left.data.is_string() && right.data.is_string()) {
      order =
          left.data.get_ref<const std::string&>().compare(right.data.get_ref<const std::string&>());
    } else {
      const int64_t difference = Integer(left, line) - Integer(right, line);
      order = difference < 0 ? -1 : difference > 0 ? 1 : 0;
    }
    if (op == "<") return order < 0;
    if (op == "<=") return order <= 0;
    return op == ">" ? order > 0 : order >= 0;
  }

  Json Arithmetic(const std::string& op, const Value& left, const Value& right, int line) const {
    if (op == "+" && left.defined && right.defined) {
      if (left.data.is_string() && right.data.is_string()) {
        return left.data.get<std::string>() + right.data.get_ref<const std::string&>();
      }
      if (left.data.is_array() && right.data.is_array()) {
        Json list = left.data;
        for (const Json& item : right.data) list.push_back(item);
        return list;
      }
    }
    const auto is_integer = [](const Value& v) { return v.defined && v.data.is_number_integer(); };
    if (!is_integer(left) || !is_integer(right)) {
      Refuse(line, "\"" + op + "\" between these types (" + TypeName(left) + ", " +
                       TypeName(right) + ") is not possible or not supported");
    }
    const int64_t a = Integer(left, line);
    const int64_t b = Integer(right, line);
    if (op == "+") return a + b;
    if (op == "-") return a - b;
    constexpr int64_t kMaxFactor = int64_t{1} << 20;
    if (op == "*") {
      if (std::max(std::abs(a), std::abs(b)) > kMaxFactor) Refuse(line, "an integer is too large");
      return a * b;
    }
    if (b == 0) Refuse(line, "division by zero");
    const int64_t rest = ((a % b) + b) % b;  // Python's: the sign of b
    return op == "%" ? rest : (a - rest) / b;
  }

  static std::string TypeName(const Value& value) {
    return value.defined ? value.data.type_name() : "undefined";
  }

  Value Attribute(const Expr& expr) {
    const Value base = Evaluate(*expr.args[0]);
    if (!base.defined) Refuse(expr.line, "attribute " + expr.text + " of an undefined value");
    if (!base.data.is_object()) return Value::Undefined();
    constexpr std::array<const char*, 10> kMethods = {"items", "keys",   "values", "get",
                                                      "copy",  "update", "pop",    "setdefault",
                                                      "clear", "popitem"};
    for (const char* method : kMethods) {
      if (expr.text == method) Refuse(expr.line, "a method that is not called");
    }
    return Member(base.data, expr.text);
  }

  static Value Member(const Json& object, const std::string& name) {
    const auto found = object.find(name);
    if (found == object.end()) return Value::Undefined();
    return {*found};
  }

  Value Subscript(const Expr& expr) {
    const Value base = Evaluate(*expr.args[0]);
    const Value index = Evaluate(*expr.args[1]);
    if (!base.defined) Refuse(expr.line, "subscript of an undefined value");
    if (base.data.is_object() && index.defined && index.data.is_string()) {
      return Member(base.data, index.data.get<std::string>());
    }
    if (!base.data.is_array()) Refuse(expr.line, "a subscript of " + TypeName(base));
    int64_t at = Integer(index, expr.line);
    const auto size = static_cast<int64_t>(base.data.size());
    if (at < 0) at += size;
    if (at < 0 || at >= size) return Value::Undefined();
    return {base.data[static_cast<size_t>(at)]};
  }

  Value Slice(const Expr& expr) {
    const Value base = Evaluate(*expr.args[0]);
    if (!base.defined || !base.data.is_array()) Refuse(expr.line, "a slice of " + TypeName(base));
    const auto bound = [&](size_t i) -> std::optional<int64_t> {
      if (!expr.args[i]) return std::nullopt;
      const Value value = Evaluate(*expr.args[i]);
      if (value.defined && value.data.is_null()) return std::nullopt;
      return Integer(value, expr.line);
    };
    const int64_t step = bound(3).value_or(1);
    if (step == 0) Refuse(expr.line, "a slice with step 0");
    const auto size = static_cast<int64_t>(base.data.size());
    const int64_t lowest = step > 0 ? 0 : -1;
    const int64_t highest = step > 0 ? size : size - 1;
    const auto place = [&](std::optional<int64_t> value, int64_t absent) {
      if (!value) return absent;
      return std::clamp(*value < 0 ? *value + size : *value, lowest, highest);
    };
    const int64_t begin = place(bound(1), step > 0 ? lowest : highest);
    const int64_t end = place(bound(2), step > 0 ? highest : lowest);
    Value list{Json::array()};
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      list.data.push_back(base.data[static_cast<size_t>(i)]);
    }
    return list;
  }

  Value Call(const Expr& expr) {
    const Expr& callee = *expr.args[0];
    if (callee.kind == ExprKind::kAttribute) {
      const Value base = Evaluate(*callee.args[0]);
      if (!base.defined) Refuse(expr.line, "method " + callee.text + " of an undefined value");
      return CallMethod(callee.text, base, CallArguments(expr));
    }
    if (callee.kind != ExprKind::kName) Refuse(expr.line, "this call is not supported");
    const Arguments arguments = CallArguments(expr);
    const bool one_text = arguments.positional.size() == 1 && arguments.named.empty() &&
                          arguments.positional[0].defined &&
                          arguments.positional[0].data.is_string();
    if (callee.text == "raise_exception" && one_text) {
      Refuse(expr.line, "the template refuses: " + arguments.positional[0].data.get<std::string>());
    }
    if (callee.text == "strftime_now" && one_text) {
      return {FormatNow(arguments.positional[0].data.get<std::string>(), expr.line)};
    }
    if (callee.text == "range" && arguments.named.empty()) return Range(arguments, expr.line);
    Refuse(expr.line, "the function " + callee.text + " with these arguments is not supported");
  }

  std::string FormatNow(const std::string& format, int line) const {
    if (!now_) Refuse(line, "the template wants the date; give one");
    std::array<char, 256> buffer{};
    const size_t length = std::strftime(buffer.data(), buffer.size(), format.c_str(), &*now_);
    if (length == 0) Refuse(line, "strftime_now cannot format \"" + format + "\"");
    return std::string(buffer.data(), length);
  }

  Value Range(const Arguments& arguments, int line) const {
    const size_t count = arguments.positional.size();
    if (count < 1 || count > 2) Refuse(line, "range takes one or two arguments here");
    const int64_t begin = count == 2 ? Integer(arguments.positional[0], line) : 0;
    const int64_t end = Integer(arguments.positional[count - 1], line);
    if (end - begin > kMaxRange) Refuse(line, "range is too long");
    Value list{Json::array()};
    for (int64_t i = begin; i < end; ++i) list.data.push_back(i);
    return list;
  }

  const std::string& where_;
  const std::optional<std::tm>& now_;
  std::vector<Scope> scopes_;
  std::string out_;
};

}  // namespace

std::string Render(const Template& source, std::map<std::string, Value> globals,
                   const std::optional<std::tm>& now) {
  return Interpreter(source.where, std::move(globals), now).Run(source.nodes);
}

}  // namespace quantmill::jinja
