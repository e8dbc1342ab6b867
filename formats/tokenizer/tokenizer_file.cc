#include "formats/tokenizer/tokenizer_file.h"

#include <limits>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;

// Receives nlohmann's parse events: builds the tree, and fills vocab and merges on the side.
class Handler : public nlohmann::json_sax<json> {
 public:
  Handler(TokenizerFile& file, const std::string& where) : file_(file), where_(where) {}

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t value) override {
    return mode_ == Mode::kVocab ? AddId(value) : Scalar(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (mode_ != Mode::kVocab) return Scalar(value);
    if (value > uint64_t{std::numeric_limits<int64_t>::max()}) Refuse("an id is out of range");
    return AddId(static_cast<int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return Scalar(value); }
  bool binary(binary_t&) override { return false; }

  bool string(string_t& value) override {
    if (mode_ == Mode::kMerges) return AddLegacyMerge(value);
    if (mode_ != Mode::kPair) return Scalar(std::move(value));
    if (parts_ == 2) Refuse("a merge has more than two parts");
    (parts_++ == 0 ? pair_.first : pair_.second) = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override {
    if (mode_ == Mode::kTree && AtModelField("vocab")) {
      file_.has_vocab = true;
      mode_ = Mode::kVocab;
      return Insert(nullptr) != nullptr;
    }
    return Open(json::object());
  }
  bool key(string_t& name) override {
    if (mode_ != Mode::kTree) {
      key_ = std::move(name);
      return true;
    }
    if (stack_.back()->contains(name)) Refuse("the key \"" + name + "\" comes twice");
    key_ = std::move(name);
    return true;
  }
  bool end_object() override {
    if (mode_ == Mode::kVocab) {
      mode_ = Mode::kTree;
      return true;
    }
    stack_.pop_back();
    return true;
  }

  bool start_array(std::size_t) override {
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kPair;
      parts_ = 0;
      return true;
    }
    if (mode_ == Mode::kTree && AtModelField("merges")) {
      file_.has_merges = true;
      mode_ = Mode::kMerges;
      return Insert(nullptr) != nullptr;
    }
    return Open(json::array());
  }
  bool end_array() override {
    if (mode_ == Mode::kPair) {
      if (parts_ != 2) Refuse("a merge has fewer than two parts");
      CheckForm(false);
      file_.merges.push_back(std::move(pair_));
      mode_ = Mode::kMerges;
      return true;
    }
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kTree;
      return true;
    }
    stack_.pop_back();
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    throw Error(ErrorCode::kBadInput, where_,
                "invalid JSON at byte " + std::to_string(position) + ": " + error.what());
  }

 private:
  enum class Mode { kTree, kVocab, kMerges, kPair };

  [[noreturn]] void Refuse(const std::string& what) const {
    const char* part = mode_ == Mode::kTree ? "" : mode_ == Mode::kVocab ? "vocab: " : "merges: ";
    throw Error(ErrorCode::kBadInput, where_, part + what);
  }

  bool AtModelField(std::string_view name) const {
    return stack_.size() == 2 && in_model_ && key_ == name;
  }

  // Puts a value where the parser stands; returns where it now lives.
  json* Insert(json value) {
    if (stack_.empty()) {
      file_.tree = std::move(value);
      return &file_.tree;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  template <typename T>
  bool Scalar(T&& value) {
    if (mode_ == Mode::kVocab) Refuse("token \"" + key_ + "\" has an id that is no integer");
    if (mode_ != Mode::kTree) Refuse("an entry is neither \"a b\" nor [\"a\", \"b\"]");
    Insert(json(std::forward<T>(value)));
    return true;
  }

  bool Open(json container) {
    if (mode_ != Mode::kTree) return Scalar(nullptr);
    if (stack_.size() == kMaxDepth) Refuse("nested too deeply");
    if (stack_.size() == 1) in_model_ = stack_.back()->is_object() && key_ == "model";
    // The parent's array may grow and move its elements only after this child is closed.
    stack_.push_back(Insert(std::move(container)));
    return true;
  }

  bool AddId(int64_t id) {
    file_.vocab.emplace_back(std::move(key_), id);
    return true;
  }

  bool AddLegacyMerge(const std::string& merge) {
    CheckForm(true);
    if (merge.rfind("#version", 0) == 0) return true;  // as the reference library: a header line
    const size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos) {
      Refuse("\"" + merge + "\" is not two tokens with one space between them");
    }
    file_.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
    return true;
  }

  void CheckForm(bool legacy) {
    if (form_known_ && legacy_ != legacy) Refuse("\"a b\" and [\"a\", \"b\"] are mixed");
    form_known_ = true;
    legacy_ = legacy;
  }

  TokenizerFile& file_;
  const std::string& where_;
  std::vector<json*> stack_;  // open containers of the tree
  std::string key_;
  bool in_model_ = false;
  Mode mode_ = Mode::kTree;
  std::pair<std::string, std::string> pair_;
  int parts_ = 0;
  bool form_known_ = false;
  bool legacy_ = false;
};

}  // namespace

TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& where) {
  TokenizerFile file;
  Handler handler(file, where);
  if (!json::sax_parse(text, &handler)) throw Error(ErrorCode::kBadInput, where, "invalid JSON");
  return file;
}

}  // namespace quantmill
