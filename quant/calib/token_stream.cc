#include "quant/calib/token_stream.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <span>

#include "formats/file.h"
#include "formats/json.h"
#include "formats/sha256.h"
#include "formats/tokenizer/chat_template.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{4} << 30;
constexpr std::string_view kSeparator = "\n\n";

void AppendPassage(std::string_view passage, std::string& text) {
  if (!text.empty()) text += kSeparator;
  text += passage;
}

std::string JoinStrings(const nlohmann::json& array, const std::string& path) {
  std::string text;
  size_t index = 0;
  for (const nlohmann::json& item : array) {
    if (!item.is_string()) {
      throw Error(ErrorCode::kBadInput, path,
                  "entry " + std::to_string(index) +
                      " is not a string; expected an array of strings or of token ids");
    }
    AppendPassage(item.get_ref<const std::string&>(), text);
    ++index;
  }
  return text;
}

bool IsArrayOfNumbers(const nlohmann::json& json) {
  return json.is_array() && !json.empty() && json[0].is_number();
}

std::vector<int32_t> IdsOf(const nlohmann::json& array, const std::string& path, int64_t vocab) {
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (const nlohmann::json& item : array) {
    const bool fits =
        item.is_number_unsigned() && item.get<uint64_t>() < static_cast<uint64_t>(vocab);
    if (!fits) {
      throw Error(ErrorCode::kBadInput, path,
                  "entry " + std::to_string(ids.size()) + " (" + item.dump() +
                      ") is not a token id below " + std::to_string(vocab));
    }
    ids.push_back(item.get<int32_t>());
  }
  return ids;
}

// Renders conversations by the checkpoint's own chat template, which is read when first needed.
class Conversations {
 public:
  explicit Conversations(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  std::string Render(const nlohmann::json& messages, const std::string& where) {
    if (!template_) Load();
    std::vector<ChatMessage> parsed;
    for (const nlohmann::json& message : messages) {
      if (!message.is_object() || !message.contains("role") || !message.at("role").is_string() ||
          !message.contains("content") || !message.at("content").is_string()) {
        throw Error(ErrorCode::kBadInput, where,
                    "message " + std::to_string(parsed.size()) +
                        " needs a string \"role\" and a string \"content\"");
      }
      parsed.push_back({message.at("role"), message.at("content")});
    }
    return template_->Render(parsed, context_);
  }

 private:
  void Load() {
    const std::string config = checkpoint_.PathOf("tokenizer_config.json");
    if (const auto text = checkpoint_.ReadFile("tokenizer_config.json")) {
      context_ = ReadChatContext(*text, config);
      template_ = ChatTemplate::FromConfig(*text, config);
    }
    // Newer checkpoints keep it apart, and it then counts.
    if (const auto text = checkpoint_.ReadFile("chat_template.jinja")) {
      template_.emplace(*text, checkpoint_.PathOf("chat_template.jinja"));
    }
    if (!template_) {
      throw Error(ErrorCode::kBadInput, config,
                  "has no chat template, which \"messages\" need; give \"text\" instead");
    }
  }

  const Checkpoint& checkpoint_;
  std::optional<ChatTemplate> template_;
  ChatContext context_;
};

// The passages of a JSON-lines file; empty lines are skipped. A rendered conversation holds its own
// separators, so nothing is put between it and its neighbours.
std::string JoinLines(const std::string& content, const std::string& path,
                      Conversations& conversations) {
  std::string text;
  size_t line_number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view line(content.data() + begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ": line " + std::to_string(line_number);
    const nlohmann::json object = ParseJson(line, where);
    if (object.is_object() && object.contains("text") && object.at("text").is_string()) {
      AppendPassage(object.at("text").get_ref<const std::string&>(), text);
    } else if (object.is_object() && object.contains("messages") &&
               object.at("messages").is_array()) {
      text += conversations.Render(object.at("messages"), where);
    } else {
      throw Error(ErrorCode::kBadInput, where,
                  "expected an object with a string \"text\" or a list of \"messages\"");
    }
  }
  return text;
}

struct TextOrIds {
  std::string text;
  std::optional<std::vector<int32_t>> ids;  // then there is no text
};

TextOrIds ReadTextOrIds(const std::string& path, const ModelSource& source) {
  if (path.empty()) return {std::string(BundledCalibrationText()), {}};
  const std::string extension = std::filesystem::path(path).extension().string();
  if (extension == ".json") {
    const nlohmann::json json = ReadJsonFile(path);
    if (!json.is_array()) {
      throw Error(ErrorCode::kBadInput, path,
                  "expected an array of strings or of token ids at the top level");
    }
    if (IsArrayOfNumbers(json)) return {{}, IdsOf(json, path, source.spec().vocab)};
    return {JoinStrings(json, path), {}};
  }
  std::string content = ReadTextFile(path, kMaxTextBytes);
  if (extension != ".jsonl") return {std::move(content), {}};
  Conversations conversations(source.checkpoint());
  return {JoinLines(content, path, conversations), {}};
}

std::vector<int32_t> Encode(const std::string& text, const Tokenizer& tokenizer,
                            bool add_special_tokens, const std::string& path) {
  try {
    return tokenizer.Encode(text, add_special_tokens);
  } catch (const Error& error) {  // the tokenizer does not know the file's name
    throw Error(error.code(), path, error.what());
  }
}

}  // namespace

Tokenizer OpenTokenizer(const ModelSource& source) {
  const std::string path = source.checkpoint().PathOf("tokenizer.json");
  const std::optional<std::string> text = source.checkpoint().ReadFile("tokenizer.json");
  if (!text) {
    // Older checkpoints have SentencePiece's own file alone.
    const char* other = source.checkpoint().HasFile("tokenizer.model")
                            ? "; tokenizer.model is not read: transformers makes the one from the "
                              "other (AutoTokenizer, save_pretrained)"
                            : "";
    throw Error(ErrorCode::kBadInput, path,
                std::string("is missing, and text needs the model's tokenizer: copy that file from "
                            "the original model into this folder") +
                    other);
  }
  return Tokenizer::FromJson(*text, path);
}

std::vector<int32_t> ReadTokenIds(const std::string& path, int64_t vocab) {
  const nlohmann::json json = ReadJsonFile(path);
  if (!json.is_array())
    throw Error(ErrorCode::kBadInput, path, "expected a JSON array of token ids");
  return IdsOf(json, path, vocab);
}

std::vector<int32_t> ReadEvaluationIds(const std::string& path, const ModelSource& source,
                                       const Tokenizer& tokenizer) {
  TextOrIds content = ReadTextOrIds(path, source);
  return content.ids ? *std::move(content.ids) : Encode(content.text, tokenizer, true, path);
}

std::vector<int32_t> ReadCalibrationIds(const std::string& path, const ModelSource& source) {
  TextOrIds content = ReadTextOrIds(path, source);
  if (content.ids) return *std::move(content.ids);
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer = OpenTokenizer(source);
  } catch (const Error& error) {
    throw Error(error.code(), error.where(),
                error.message() + "; or calibrate on token ids, an array of them in a .json file");
  }
  return Encode(content.text, *tokenizer, false, path);
}

TokenWindows CutCalibrationWindows(const std::vector<int32_t>& ids, int64_t count, int64_t length,
                                   std::optional<uint64_t> seed) {
  if (count < 1) throw Error(ErrorCode::kUsage, "--samples", "must be at least 1");
  if (length < 2) throw Error(ErrorCode::kUsage, "--sequence-length", "must be at least 2");
  const int64_t available = static_cast<int64_t>(ids.size()) / length;
  if (available < count) {
    throw Error(ErrorCode::kBadInput, "calibration text",
                "has " + std::to_string(ids.size()) + " tokens: enough for " +
                    std::to_string(available) + " windows of " + std::to_string(length) + ", not " +
                    std::to_string(count) +
                    "; give more text, or lower --samples or --sequence-length");
  }
  // Which windows: a set, so that a seeded draw is without repetition and keeps the text's order.
  std::set<int64_t> chosen;
  if (!seed) {
    for (int64_t i = 0; i < count; ++i) chosen.insert(i);
  } else {
    std::mt19937_64 random(*seed);
    // Floyd's sampling; the modulo's bias is below 2^-40 for any text that fits in memory.
    for (int64_t j = available - count; j < available; ++j) {
      const auto draw = static_cast<int64_t>(random() % static_cast<uint64_t>(j + 1));
      chosen.insert(chosen.contains(draw) ? j : draw);
    }
  }
  TokenWindows windows;
  windows.length = length;
  windows.ids.reserve(static_cast<size_t>(count * length));
  for (const int64_t window : chosen) {
    const auto begin = ids.begin() + window * length;
    windows.ids.insert(windows.ids.end(), begin, begin + length);
  }
  return windows;
}

TokenWindows TakeLastWindows(std::vector<int32_t>& ids, int64_t count, int64_t length) {
  const int64_t total = std::ssize(ids) / length;
  Check(count >= 0 && count <= total, "TakeLastWindows: more windows than there are");
  TokenWindows last;
  last.length = length;
  last.ids.assign(ids.begin() + (total - count) * length, ids.begin() + total * length);
  if (count > 0) ids.resize(static_cast<size_t>((total - count) * length));
  return last;
}

std::string HashTokens(const std::vector<int32_t>& ids) {
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(ids)));  // every supported machine is little-endian
  return hash.Hex();
}

}  // namespace quantmill
