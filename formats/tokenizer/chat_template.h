// Chat templates: the Jinja of tokenizer_config.json, rendered as transformers renders it.
#ifndef QUANTMILL_FORMATS_TOKENIZER_CHAT_TEMPLATE_H_
#define QUANTMILL_FORMATS_TOKENIZER_CHAT_TEMPLATE_H_

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace quantmill {

struct ChatMessage {
  std::string role;
  std::string content;
};

// What a template sees beside the messages. `tools` and `documents` are none.
struct ChatContext {
  bool add_generation_prompt = false;
  std::optional<std::string> bos_token;  // undefined in the template when absent
  std::optional<std::string> eos_token;
  std::optional<std::tm> now;  // what strftime_now formats; calling it without is an Error
};

namespace jinja {
struct Template;
}

// One parsed template. Immutable and thread-safe; rendering is deterministic.
//
// A subset of Jinja: text, {{ }}, {# #}, if/elif/else, for (with `if` and `else`, loop.*, break,
// continue), set (also of a block and of namespace attributes), generation; literals, operators,
// conditional expressions, subscripts, slices, and the tests, filters, functions and methods that
// chat templates of known models use, with trim_blocks and lstrip_blocks on. What is outside of it
// (macros, includes, other filters, ...) is an Error, never an approximation: unknown statements
// when parsing, the rest when a conversation reaches it.
class ChatTemplate {
 public:
  // Throws Error(kBadInput, where) with the line for a template that cannot be parsed.
  ChatTemplate(std::string_view source, const std::string& where);
  // From the text of a tokenizer_config.json: `chat_template`, a text or a list with an entry named
  // "default". nullopt when it has none; Error(kBadInput, where) for invalid JSON.
  static std::optional<ChatTemplate> FromConfig(std::string_view config, const std::string& where);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // The prompt. It holds the special tokens: encode it without adding any. Throws Error(kBadInput)
  // with the line for what is not supported, what Jinja itself refuses, and raise_exception.
  std::string Render(std::span<const ChatMessage> messages, const ChatContext& context) const;

 private:
  std::unique_ptr<const jinja::Template> template_;
};

// `bos_token` and `eos_token` of the text of a tokenizer_config.json, as texts. Throws
// Error(kBadInput, where).
ChatContext ReadChatContext(std::string_view config, const std::string& where);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_CHAT_TEMPLATE_H_
