#include "formats/gguf/pre_tokenizer_names.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace quantmill {
namespace {

using nlohmann::json;

// GPT-2's pattern is the one that ByteLevel has built in.
constexpr std::string_view kByteLevel = "ByteLevel";
constexpr std::string_view kDigits = "Digits";
constexpr std::string_view kPunctuation = "Punctuation";
constexpr std::string_view kDigitRuns = "DigitRuns";
constexpr std::string_view kDigitTriples = "[0-9][0-9][0-9]";
constexpr std::string_view kBloom = R"( ?[^(\s|[.,!?…。，、।۔،])]+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Steps before the bytes become their alphabet: a pattern that isolates its matches, kDigits (each
// digit alone), kDigitRuns, kPunctuation (runs), kByteLevel (GPT-2's pattern). Written are the
// names of this table. llama.cpp's "falcon" does not part a space from the digits that follow, as
// Falcon's kDigitRuns does: a vocabulary made with it has no token across, so the tokens are the
// same.
struct Known {
  std::array<std::string_view, 4> steps;
  bool ignore_merges;
  std::string_view name;
};
constexpr std::array kKnown = {
    Known{{kByteLevel}, false, "gpt-2"},
    Known{{kDigits, kByteLevel}, false, "smollm"},
    Known{{kPunctuation, kByteLevel, kDigitRuns, kDigitTriples}, false, "falcon"},
    Known{{kPunctuation, kByteLevel, kDigitTriples}, false, "falcon"},
    Known{{kBloom}, false, "bloom"},
    Known{{kLlama3}, true, "llama-bpe"},
    Known{{kLlama3}, false, "dbrx"},
    Known{{kQwen2}, false, "qwen2"},
    Known{{kTekken}, true, "tekken"},
};

// Every name that is read, by the name of a row of the same patterns. Those left out (deepseek's,
// gpt-4o's and more) are refused: a pattern that is nearly right gives other tokens here and there.
struct ReadName {
  std::string_view name;
  std::array<std::string_view, 3> steps;
  bool ignore_merges = false;
  bool adds_bos = false;
  bool composes = false;  // NFC, in the tokenizer.json of these models
};
constexpr std::array kRead = {
    ReadName{"gpt-2", {kByteLevel}},
    ReadName{"phi-2", {kByteLevel}},
    ReadName{"mpt", {kByteLevel}, false, false, true},
    ReadName{"olmo", {kByteLevel}, false, false, true},
    ReadName{"smollm", {kDigits, kByteLevel}},
    ReadName{"starcoder", {kDigits, kByteLevel}},
    ReadName{"refact", {kDigits, kByteLevel}},
    ReadName{"codeshell", {kDigits, kByteLevel}},
    ReadName{"falcon", {kPunctuation, kByteLevel, kDigitTriples}},
    ReadName{"bloom", {kBloom}},
    ReadName{"llama-bpe", {kLlama3}, true, true},
    ReadName{"llama3", {kLlama3}, true, true},
    ReadName{"llama-v3", {kLlama3}, true, true},
    ReadName{"dbrx", {kLlama3}},
    ReadName{"smaug-bpe", {kLlama3}},
    ReadName{"qwen2", {kQwen2}, false, false, true},
    ReadName{"deepseek-r1-qwen", {kQwen2}, false, false, true},
    ReadName{"tekken", {kTekken}, true, true},
};

json StepAsJson(std::string_view step) {
  if (step == kDigits) return {{"type", "Digits"}, {"individual_digits", true}};
  if (step == kPunctuation) return {{"type", "Punctuation"}, {"behavior", "Contiguous"}};
  if (step == kByteLevel) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}};
  }
  return {{"type", "Split"},
          {"pattern", {{"Regex", step}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

// One pre-tokenizer as steps; false for what has none of these forms.
bool AppendSteps(const json& part, std::vector<std::string>& steps) {
  const std::string type = part.value("type", "");
  if (type == "Sequence") {
    for (const json& inner : part.at("pretokenizers")) {
      if (!AppendSteps(inner, steps)) return false;
    }
    return true;
  }
  if (type == "ByteLevel") {
    if (part.value("add_prefix_space", true)) return false;  // llama.cpp never puts one there
    if (part.value("use_regex", true)) steps.emplace_back(kByteLevel);
    return true;
  }
  if (type == "Digits") {
    steps.emplace_back(part.value("individual_digits", false) ? kDigits : kDigitRuns);
    return true;
  }
  if (type == "Punctuation" && part.value("behavior", "Isolated") == "Contiguous") {
    steps.emplace_back(kPunctuation);
    return true;
  }
  if (type == "Split" && part.at("pattern").contains("Regex") &&
      part.value("behavior", "") == "Isolated" && !part.value("invert", true)) {
    steps.push_back(part.at("pattern").at("Regex").get<std::string>());
    return true;
  }
  return false;
}

}  // namespace

std::string_view PreTokenizerName(const json& pre_tokenizer, bool ignore_merges) {
  std::vector<std::string> steps;
  if (!pre_tokenizer.is_object() || !AppendSteps(pre_tokenizer, steps)) return "";
  for (const Known& known : kKnown) {
    const auto end = std::ranges::find(known.steps, std::string_view());
    if (known.ignore_merges == ignore_merges &&
        std::equal(steps.begin(), steps.end(), known.steps.begin(), end)) {
      return known.name;
    }
  }
  return "";
}

std::optional<NamedPreTokenizer> PreTokenizerNamed(std::string_view name) {
  const auto* known = std::find_if(kRead.begin(), kRead.end(),
                                   [&](const ReadName& row) { return row.name == name; });
  if (known == kRead.end()) return std::nullopt;
  json parts = json::array();
  bool has_alphabet = false;
  for (const std::string_view step : known->steps) {
    if (step.empty()) continue;
    parts.push_back(StepAsJson(step));
    has_alphabet |= step == kByteLevel;
  }
  if (!has_alphabet) {
    parts.push_back(StepAsJson(kByteLevel));
    parts.back()["use_regex"] = false;
  }
  NamedPreTokenizer result;
  if (known->composes) result.normalizer = {{"type", "NFC"}};
  result.pre_tokenizer =
      parts.size() == 1 ? parts[0] : json{{"type", "Sequence"}, {"pretokenizers", parts}};
  result.ignore_merges = known->ignore_merges;
  result.adds_bos = known->adds_bos;
  return result;
}

}  // namespace quantmill
