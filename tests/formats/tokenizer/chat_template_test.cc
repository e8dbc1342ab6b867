// Chat templates against jinja2 with the settings of transformers (golden/chat.json).
#include "formats/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "golden.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

std::string Render(const std::string& source, const std::vector<ChatMessage>& messages = {}) {
  ChatContext context;
  context.bos_token = "<s>";
  return ChatTemplate(source, "test").Render(messages, context);
}

TEST(ChatTemplates, RenderLikeJinja) {
  const nlohmann::json golden = ReadGolden("chat.json");
  for (const auto& item : golden["cases"]) {
    const auto name = item["template"].get<std::string>();
    SCOPED_TRACE(name + " " + item["messages"].dump() + (item["prompt"] ? " +prompt" : ""));
    const ChatTemplate chat(golden["templates"][name].get<std::string>(), name);
    std::vector<ChatMessage> messages;
    for (const auto& message : item["messages"]) messages.push_back({message[0], message[1]});
    ChatContext context;
    context.add_generation_prompt = item["prompt"];
    context.bos_token = "<s>";
    context.eos_token = "</s>";
    if (item["text"].is_null()) {
      EXPECT_THROW(chat.Render(messages, context), Error);
    } else {
      EXPECT_EQ(chat.Render(messages, context), item["text"].get<std::string>());
    }
  }
}

TEST(ChatTemplates, ControlWhiteSpace) {
  EXPECT_EQ(Render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(Render("a \n {%- if true -%} \n b {%- endif %}"), "ab");
  EXPECT_EQ(Render("a\n  {%+ if true +%}\nb{% endif %}"), "a\n  \nb");
  EXPECT_EQ(Render("a\n  {{ 'x' }}\n{# c #}\nb"), "a\n  x\nb");
  EXPECT_EQ(Render("a\r\nb\r"), "a\nb");
  EXPECT_EQ(Render("{ {{ '{%' }} }"), "{ {% }");
}

TEST(ChatTemplates, RefuseWhatTheyDoNotKnow) {
  for (const char* source : {"{% macro f() %}{% endmacro %}",
                             "{% include 'x' %}",
                             "{% raw %}{% endraw %}",
                             "{{ x | reject }}",
                             "{{ 'x' is upper }}",
                             "{{ 'x'.zfill(3) }}",
                             "{{ lipsum() }}",
                             "{{ 1.5 }}",
                             "{{ [1] }}",
                             "{{ (1, 2) }}",
                             "{{ nothing.x }}",
                             "{{ nothing['x'] }}",
                             "{{ 'a' + 1 }}",
                             "{{ 1 // 0 }}",
                             "{{ raise_exception('no') }}",
                             "{{ strftime_now('%Y') }}",
                             "{{ '\u00E9' | upper }}",
                             "{{ 1 < 2 < 3 }}",
                             "{{ {}.items }}",
                             "{% set x.y = 1 %}",
                             "{% for x in 5 %}{% endfor %}",
                             "{% break %}",
                             "{{ 99999999999 }}",
                             "{{ 1 == true }}",
                             "{{",
                             "{% if %}",
                             "{% if true %}",
                             "{% endif %}",
                             "{{ 'x }}",
                             "{# x",
                             "{{ 'a' ]}}",
                             "{{ '\\q' }}",
                             "{{ 1 + }}",
                             "{{ range(1000000) }}"}) {
    EXPECT_THROW(Render(source), Error) << source;
  }
  EXPECT_THROW(Render("{{ '"
                      "\xFF"
                      "' }}"),
               Error);
  EXPECT_THROW(Render(std::string(100000, '(').insert(0, "{{ ")), Error);
  std::string deep;
  for (int i = 0; i < 10000; ++i) deep += "{% if true %}";
  EXPECT_THROW(Render(deep), Error);
}

TEST(ChatTemplates, NameTheLine) {
  try {
    Render("a\n{{ 'b' }}\n{{ raise_exception('roles') }}");
    FAIL() << "rendered";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "test: line 3: the template refuses: roles");
  }
}

TEST(ChatTemplates, FormatTheDate) {
  ChatContext context;
  context.now = std::tm{};
  context.now->tm_year = 124;
  context.now->tm_mon = 6;
  context.now->tm_mday = 26;
  const ChatTemplate chat("{{ strftime_now('%d %b %Y') }}", "test");
  EXPECT_EQ(chat.Render({}, context), "26 Jul 2024");
}

TEST(ChatTemplates, ComeFromTokenizerConfig) {
  const std::string config = R"({"bos_token": {"content": "<s>"}, "eos_token": null,
      "chat_template": [{"name": "tool", "template": "no"}, {"name": "default", "template": "yes"}]})";
  EXPECT_EQ(ChatTemplate::FromConfig(config, "test")->Render({}, {}), "yes");
  EXPECT_EQ(ReadChatContext(config, "test").bos_token, "<s>");
  EXPECT_EQ(ReadChatContext(config, "test").eos_token, std::nullopt);
  EXPECT_FALSE(ChatTemplate::FromConfig("{}", "test").has_value());
  for (const char* bad : {"", "[]", R"({"chat_template": 1})", R"({"chat_template": []})",
                          R"({"chat_template": [{"name": "x"}]})"}) {
    EXPECT_THROW(ChatTemplate::FromConfig(bad, "test"), Error) << bad;
  }
}

TEST(ChatTemplates, SurviveTruncationAndMutation) {
  const nlohmann::json golden = ReadGolden("chat.json");
  for (const auto& [name, text] : golden["templates"].items()) {
    const auto good = text.get<std::string>();
    for (size_t i = 0; i < good.size(); ++i) {
      std::string swapped = good;
      swapped[i] = "{}%'-(|x"[i % 8];
      for (const std::string& bad : {good.substr(0, i), swapped}) {
        try {
          Render(bad, {{"user", "Hello"}});
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::kBadInput);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quantmill
