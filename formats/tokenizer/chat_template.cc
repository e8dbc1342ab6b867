#include "formats/tokenizer/chat_template.h"

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/json.h"
#include "formats/tokenizer/jinja.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

nlohmann::json ParseConfig(std::string_view config, const std::string& where) {
  nlohmann::json parsed = ParseJson(config, where);
  if (!parsed.is_object()) throw Error(ErrorCode::kBadInput, where, "must be an object");
  return parsed;
}

// A special token: a text, or an object with `content`.
std::optional<std::string> ReadToken(const nlohmann::json& config, const char* name,
                                     const std::string& where) {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  throw Error(ErrorCode::kBadInput, where, std::string(name) + " must be a text");
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, const std::string& where) {
  if (FindInvalidUtf8(source)) throw Error(ErrorCode::kBadInput, where, "invalid UTF-8");
  auto parsed = std::make_unique<jinja::Template>();
  parsed->where = where;
  parsed->nodes = jinja::Parse(jinja::Tokenize(source, where), where);
  template_ = std::move(parsed);
}

ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

std::optional<ChatTemplate> ChatTemplate::FromConfig(std::string_view config,
                                                     const std::string& where) {
  const nlohmann::json parsed = ParseConfig(config, where);
  const auto found = parsed.find("chat_template");
  if (found == parsed.end() || found->is_null()) return std::nullopt;
  const std::string path = where + ": chat_template";
  if (found->is_string()) return ChatTemplate(found->get<std::string>(), path);
  if (found->is_array()) {
    for (const nlohmann::json& entry : *found) {
      const bool named = entry.is_object() && entry.value("name", nlohmann::json()) == "default";
      if (named && entry.contains("template") && entry["template"].is_string()) {
        return ChatTemplate(entry["template"].get<std::string>(), path);
      }
    }
  }
  throw Error(ErrorCode::kBadInput, path, "is neither a text nor a list with a \"default\" entry");
}

std::string ChatTemplate::Render(std::span<const ChatMessage> messages,
                                 const ChatContext& context) const {
  std::map<std::string, jinja::Value> globals;
  jinja::Json list = jinja::Json::array();
  for (const ChatMessage& message : messages) {
    if (FindInvalidUtf8(message.role) || FindInvalidUtf8(message.content)) {
      throw Error(ErrorCode::kBadInput, "chat message", "invalid UTF-8");
    }
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  globals["messages"] = {std::move(list)};
  globals["add_generation_prompt"] = {context.add_generation_prompt};
  globals["tools"] = {nullptr};
  globals["documents"] = {nullptr};
  if (context.bos_token) globals["bos_token"] = {*context.bos_token};
  if (context.eos_token) globals["eos_token"] = {*context.eos_token};
  return jinja::Render(*template_, std::move(globals), context.now);
}

ChatContext ReadChatContext(std::string_view config, const std::string& where) {
  const nlohmann::json parsed = ParseConfig(config, where);
  ChatContext context;
  context.bos_token = ReadToken(parsed, "bos_token", where);
  context.eos_token = ReadToken(parsed, "eos_token", where);
  return context;
}

}  // namespace quantmill
