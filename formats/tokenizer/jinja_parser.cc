#include <algorithm>
#include <array>

#include "formats/tokenizer/jinja.h"

namespace quantmill::jinja {
namespace {

constexpr int kMaxDepth = 200;

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& where)
      : tokens_(std::move(tokens)), where_(where) {}

  std::vector<Node> Run() {
    std::vector<Node> nodes = Body();
    if (Peek().kind != TokenKind::kEnd) Refuse("unexpected {% " + Peek(1).text + " %}");
    return nodes;
  }

 private:
  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)];
  }
  Token Take() { return tokens_[pos_ + 1 < tokens_.size() ? pos_++ : pos_]; }
  bool IsOperator(std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).kind == TokenKind::kOperator && Peek(ahead).text == text;
  }
  bool IsName(std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).kind == TokenKind::kName && Peek(ahead).text == text;
  }
  bool TakeOperator(std::string_view text) {
    const bool found = IsOperator(text);
    if (found) ++pos_;
    return found;
  }
  bool TakeName(std::string_view text) {
    const bool found = IsName(text);
    if (found) ++pos_;
    return found;
  }
  void ExpectOperator(const std::string& text) {
    if (!TakeOperator(text)) Refuse("expected " + text + " before \"" + Peek().text + "\"");
  }
  std::string ExpectName() {
    if (Peek().kind != TokenKind::kName) Refuse("expected a name before \"" + Peek().text + "\"");
    return Take().text;
  }
  [[noreturn]] void Refuse(const std::string& what) const { Fail(where_, Peek().line, what); }

  // Guards the recursion of one function.
  class Depth {
   public:
    explicit Depth(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.Refuse("nested too deeply");
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Parser& parser_;
  };

  // Nodes up to a tag that ends the body: endif, else, ... or the end.
  std::vector<Node> Body() {
    const Depth depth(*this);
    constexpr std::array<std::string_view, 6> kEnds = {"endif",  "elif",   "else",
                                                       "endfor", "endset", "endgeneration"};
    std::vector<Node> nodes;
    while (Peek().kind != TokenKind::kEnd) {
      if (Peek().kind == TokenKind::kText) {
        Node& node = nodes.emplace_back(New(NodeKind::kText));
        node.text = Take().text;
      } else if (TakeOperator("{{")) {
        Node& node = nodes.emplace_back(New(NodeKind::kOutput));
        node.expr = Expression();
        ExpectOperator("}}");
      } else {
        if (std::find(kEnds.begin(), kEnds.end(), Peek(1).text) != kEnds.end()) break;
        ExpectOperator("{%");
        nodes.push_back(Statement());
      }
    }
    return nodes;
  }

  Node New(NodeKind kind) const {
    Node node{};
    node.kind = kind;
    node.line = Peek().line;
    return node;
  }

  void EndTag(const std::string& name) {
    if (!IsOperator("{%") || !IsName(name, 1)) Refuse("{% " + name + " %} is missing");
    pos_ += 2;
    ExpectOperator("%}");
  }

  Node Statement() {
    const Node at = New(NodeKind::kText);
    const std::string name = ExpectName();
    if (name == "if") return If();
    if (name == "for") return For();
    if (name == "set") return Set();
    if (name == "generation") {  // marks the assistant's text for training
      Node node = New(NodeKind::kGroup);
      ExpectOperator("%}");
      node.body = Body();
      EndTag("endgeneration");
      return node;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) Refuse(name + " outside a loop");
      Node node = New(name == "break" ? NodeKind::kBreak : NodeKind::kContinue);
      ExpectOperator("%}");
      return node;
    }
    Fail(where_, at.line, "{% " + name + " %} is not supported");
  }

  Node If() {
    Node node = New(NodeKind::kIf);
    node.expr = Expression();
    ExpectOperator("%}");
    node.body = Body();
    if (IsOperator("{%") && IsName("elif", 1)) {
      pos_ += 2;
      const Depth depth(*this);
      node.other.push_back(If());  // takes the endif
      return node;
    }
    Else(node);
    EndTag("endif");
    return node;
  }

  void Else(Node& node) {
    if (!IsOperator("{%") || !IsName("else", 1)) return;
    pos_ += 2;
    ExpectOperator("%}");
    node.other = Body();
  }

  Node For() {
    Node node = New(NodeKind::kFor);
    do {
      node.names.push_back(ExpectName());
    } while (TakeOperator(","));
    if (!TakeName("in")) Refuse("expected in");
    node.expr = Or();
    if (TakeName("if")) node.filter = Expression();
    if (IsName("recursive")) Refuse("recursive loops are not supported");
    ExpectOperator("%}");
    ++loops_;
    node.body = Body();
    --loops_;
    Else(node);
    EndTag("endfor");
    return node;
  }

  Node Set() {
    Node node = New(NodeKind::kSet);
    node.names.push_back(ExpectName());
    if (TakeOperator(".")) node.names.push_back(ExpectName());
    if (TakeOperator("=")) {
      node.expr = Expression();
      ExpectOperator("%}");
      return node;
    }
    if (node.names.size() > 1 || !IsOperator("%}")) Refuse("this form of set is not supported");
    ExpectOperator("%}");
    node.kind = NodeKind::kSetBlock;
    node.body = Body();
    EndTag("endset");
    return node;
  }

  ExprPtr Make(ExprKind kind, std::string text = "") const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = Peek().line;
    expr->text = std::move(text);
    return expr;
  }
  ExprPtr Binary(std::string text, ExprPtr left, ExprPtr right) const {
    ExprPtr expr = Make(ExprKind::kBinary, std::move(text));
    expr->args.push_back(std::move(left));
    expr->args.push_back(std::move(right));
    return expr;
  }

  // then if condition else other
  ExprPtr Expression() {
    const Depth depth(*this);
    ExprPtr expr = Or();
    while (TakeName("if")) {
      ExprPtr conditional = Make(ExprKind::kConditional);
      conditional->args.push_back(Or());
      conditional->args.push_back(std::move(expr));
      conditional->args.push_back(TakeName("else") ? Expression() : nullptr);
      expr = std::move(conditional);
    }
    return expr;
  }

  ExprPtr Or() {
    ExprPtr expr = And();
    while (TakeName("or")) expr = Binary("or", std::move(expr), And());
    return expr;
  }
  ExprPtr And() {
    ExprPtr expr = Not();
    while (TakeName("and")) expr = Binary("and", std::move(expr), Not());
    return expr;
  }
  ExprPtr Not() {
    const Depth depth(*this);
    if (!IsName("not") || IsName("in", 1)) return Compare();
    Take();
    ExprPtr expr = Make(ExprKind::kUnary, "not");
    expr->args.push_back(Not());
    return expr;
  }

  ExprPtr Compare() {
    ExprPtr expr = Sum();
    for (int count = 0;; ++count) {
      std::string op;
      for (const char* candidate : {"==", "!=", "<", "<=", ">", ">="}) {
        if (IsOperator(candidate)) op = candidate;
      }
      if (IsName("in")) op = "in";
      if (IsName("not") && IsName("in", 1)) op = "not in";
      if (op.empty()) return expr;
      if (count > 0) Refuse("chained comparisons are not supported");
      pos_ += op == "not in" ? 2 : 1;
      expr = Binary(op, std::move(expr), Sum());
    }
  }

  ExprPtr Sum() {
    ExprPtr expr = Concat();
    while (IsOperator("+") || IsOperator("-")) {
      const std::string op = Take().text;
      expr = Binary(op, std::move(expr), Concat());
    }
    return expr;
  }
  ExprPtr Concat() {
    ExprPtr expr = Product();
    while (TakeOperator("~")) expr = Binary("~", std::move(expr), Product());
    return expr;
  }
  ExprPtr Product() {
    ExprPtr expr = Unary();
    while (IsOperator("*") || IsOperator("//") || IsOperator("%")) {
      const std::string op = Take().text;
      expr = Binary(op, std::move(expr), Unary());
    }
    return expr;
  }
  // Filters and tests bind more weakly than a sign.
  ExprPtr Unary() { return FiltersAndTests(Signed()); }
  ExprPtr Signed() {
    const Depth depth(*this);
    if (!IsOperator("-") && !IsOperator("+")) return Postfix(Primary());
    ExprPtr expr = Make(ExprKind::kUnary, Take().text);
    expr->args.push_back(Signed());
    return expr;
  }

  ExprPtr Primary() {
    const Token token = Peek();
    if (token.kind == TokenKind::kString || token.kind == TokenKind::kInteger) {
      ExprPtr expr = Make(ExprKind::kLiteral);
      Take();
      expr->value =
          token.kind == TokenKind::kString ? Json(token.text) : Json(std::stoll(token.text));
      while (token.kind == TokenKind::kString && Peek().kind == TokenKind::kString) {
        expr->value = expr->value.get<std::string>() + Take().text;
      }
      return expr;
    }
    if (token.kind == TokenKind::kName) return NameOrConstant();
    if (TakeOperator("(")) {
      ExprPtr expr = Expression();
      if (IsOperator(",")) Refuse("tuples are not supported");
      ExpectOperator(")");
      return expr;
    }
    if (TakeOperator("[")) {
      ExprPtr expr = Make(ExprKind::kList);
      while (!IsOperator("]")) {
        expr->args.push_back(Expression());
        if (!TakeOperator(",")) break;
      }
      ExpectOperator("]");
      return expr;
    }
    if (TakeOperator("{")) {
      ExprPtr expr = Make(ExprKind::kDict);
      while (!IsOperator("}")) {
        expr->args.push_back(Expression());
        ExpectOperator(":");
        expr->args.push_back(Expression());
        if (!TakeOperator(",")) break;
      }
      ExpectOperator("}");
      return expr;
    }
    Refuse("unexpected \"" + token.text + "\"");
  }

  ExprPtr NameOrConstant() {
    ExprPtr expr = Make(ExprKind::kLiteral);
    const std::string name = Take().text;
    if (name == "true" || name == "True") {
      expr->value = true;
    } else if (name == "false" || name == "False") {
      expr->value = false;
    } else if (name != "none" && name != "None") {
      for (const char* reserved : {"in", "is", "and", "or", "not", "if", "else"}) {
        if (name == reserved) Refuse("unexpected \"" + name + "\"");
      }
      expr->kind = ExprKind::kName;
      expr->text = name;
    }
    return expr;
  }

  ExprPtr Postfix(ExprPtr expr) {
    for (;;) {
      if (TakeOperator(".")) {
        ExprPtr attribute = Make(ExprKind::kAttribute, ExpectName());
        attribute->args.push_back(std::move(expr));
        expr = std::move(attribute);
      } else if (TakeOperator("[")) {
        expr = Subscript(std::move(expr));
      } else if (IsOperator("(")) {
        ExprPtr call = Make(ExprKind::kCall);
        call->args.push_back(std::move(expr));
        CallArguments(*call);
        expr = std::move(call);
      } else {
        return expr;
      }
    }
  }

  ExprPtr Subscript(ExprPtr base) {
    std::array<ExprPtr, 3> bounds;
    size_t colons = 0;
    while (!IsOperator("]")) {
      if (TakeOperator(":")) {
        if (++colons > 2) Refuse("a slice has three parts at most");
      } else {
        if (bounds[colons]) Refuse("expected ]");
        bounds[colons] = Expression();
      }
    }
    ExpectOperator("]");
    if (colons == 0 && !bounds[0]) Refuse("an empty subscript");
    ExprPtr expr = Make(colons == 0 ? ExprKind::kSubscript : ExprKind::kSlice);
    expr->args.push_back(std::move(base));
    expr->args.push_back(std::move(bounds[0]));
    if (colons == 0) return expr;
    expr->args.push_back(std::move(bounds[1]));
    expr->args.push_back(std::move(bounds[2]));
    return expr;
  }

  void CallArguments(Expr& call) {
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (Peek().kind == TokenKind::kName && IsOperator("=", 1)) {
        std::string name = Take().text;
        Take();
        call.named.emplace_back(std::move(name), Expression());
      } else {
        if (!call.named.empty()) Refuse("a positional argument after a named one");
        call.args.push_back(Expression());
      }
      if (!TakeOperator(",")) break;
    }
    ExpectOperator(")");
  }

  ExprPtr FiltersAndTests(ExprPtr expr) {
    for (;;) {
      if (TakeOperator("|")) {
        ExprPtr filter = Make(ExprKind::kFilter, ExpectName());
        filter->args.push_back(std::move(expr));
        if (IsOperator("(")) CallArguments(*filter);
        expr = std::move(filter);
      } else if (TakeName("is")) {
        const bool negated = TakeName("not");
        ExprPtr test = Make(ExprKind::kTest, ExpectName());
        test->args.push_back(std::move(expr));
        if (IsOperator("(")) CallArguments(*test);
        expr = std::move(test);
        if (!negated) continue;
        ExprPtr inverse = Make(ExprKind::kUnary, "not");
        inverse->args.push_back(std::move(expr));
        expr = std::move(inverse);
      } else {
        return expr;
      }
    }
  }

  std::vector<Token> tokens_;
  const std::string& where_;
  size_t pos_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

std::vector<Node> Parse(std::vector<Token> tokens, const std::string& where) {
  return Parser(std::move(tokens), where).Run();
}

}  // namespace quantmill::jinja
