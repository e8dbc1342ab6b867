// quantmill generate: text from a prompt, as it comes.
#include "quant/runtime/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/tokenizer/stream_decoder.h"
#include "quant/calib/token_stream.h"
#include "quant/model/model_source.h"
#include "quant/report/layout.h"
#include "quant/report/units.h"
#include "tools/command.h"
#include "tools/flag_set.h"
#include "tools/session.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

// eos_token_id of one file: a number or a list of them. Empty where there is none.
std::vector<int32_t> EosIds(const nlohmann::json& config) {
  std::vector<int32_t> ids;
  if (!config.is_object() || !config.contains("eos_token_id")) return ids;
  const nlohmann::json& eos = config.at("eos_token_id");
  const auto add = [&](const nlohmann::json& id) {
    if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
  };
  if (eos.is_array()) {
    for (const nlohmann::json& id : eos) add(id);
  } else {
    add(eos);
  }
  return ids;
}

// generation_config.json wins: chat models list their end of turn there only.
std::vector<int32_t> StopIds(const ModelSource& source) {
  const Checkpoint& checkpoint = source.checkpoint();
  if (const auto text = checkpoint.ReadFile("generation_config.json")) {
    std::vector<int32_t> ids =
        EosIds(ParseJson(*text, checkpoint.PathOf("generation_config.json")));
    if (!ids.empty()) return ids;
  }
  return EosIds(source.checkpoint().config());
}

// What a terminal would obey is not shown; line breaks and tabs are.
std::string ForTerminal(const std::string& text) {
  std::string result;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of("\n\t", begin), text.size());
    result += Printable(std::string_view(text).substr(begin, end - begin));
    if (end < text.size()) result += text[end];
    begin = end + 1;
  }
  return result;
}

double DecodeRate(const GenerationResult& result) {
  if (result.decode_seconds <= 0) return 0;
  return static_cast<double>(result.decoded_tokens) / result.decode_seconds;
}

class GenerateCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override;
  int Run(Console& console) override;

 private:
  GenerationOptions OptionsFor(const ModelSource& source, int64_t prompt_tokens) const;
  void WriteJson(const Console& console, int64_t prompt_tokens, const std::string& text,
                 const std::string& kv_cache, const GenerationResult& result) const;

  std::string model_;
  std::string prompt_;
  GenerationOptions options_;
  std::string compute_ = "auto";
  std::string kv_cache_ = "auto";
};

FlagSet GenerateCommand::Register(CLI::App& app) {
  FlagSet command(app, "generate", "continue a text");
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.Add(flag, value, help);
  };
  add("MODEL", model_, "checkpoint or artifact").Required().ValueName("");
  add("--prompt", prompt_, "text to continue").Required().ValueName("TEXT");
  add("--max-tokens", options_.max_tokens, "default: 128").IntegerIn(1, 10'000'000);
  SamplingOptions& sampling = options_.sampling;
  add("--temperature", sampling.temperature, "default: 0, the likeliest token").NumberIn(0, 100);
  add("--top-k", sampling.top_k, "draw from the k likeliest; default: all")
      .IntegerIn(1, 10'000'000);
  add("--top-p", sampling.top_p, "draw from this share of probability; default: 1").NumberIn(0, 1);
  add("--seed", sampling.seed, "default: 0").IntegerIn(0, INT64_MAX);
  add("--compute", compute_, "default: auto").OneOf({"auto", "f32", "bf16"});
  add("--kv-cache", kv_cache_, "keys and values; default: auto, as the\nmodel says")
      .OneOf(KvPrecisionNames());
  AddCommonFlags(command);
  command.Footer(
      "Example: a short text from the bundled model\n"
      "  quantmill generate calib_data/sample_model --prompt 'Once upon a time' \\\n"
      "      --max-tokens 60 --temperature 0.8 --seed 1");
  return command;
}

GenerationOptions GenerateCommand::OptionsFor(const ModelSource& source,
                                              int64_t prompt_tokens) const {
  GenerationOptions options = options_;
  options.stop_ids = StopIds(source);
  const int64_t positions = source.spec().max_positions;
  if (positions == 0) return options;
  if (prompt_tokens >= positions) {
    throw Error(ErrorCode::kUsage, "--prompt",
                fmt::format("has {} tokens; {} has {} positions", FormatCount(prompt_tokens),
                            source.path(), FormatCount(positions)));
  }
  options.max_tokens = std::min(options.max_tokens, positions - prompt_tokens);
  return options;
}

void GenerateCommand::WriteJson(const Console& console, int64_t prompt_tokens,
                                const std::string& text, const std::string& kv_cache,
                                const GenerationResult& result) const {
  console.Write(JsonText({{"model", model_},
                          {"prompt", prompt_},
                          {"prompt_tokens", prompt_tokens},
                          {"text", text},
                          {"ids", result.ids},
                          {"kv_cache", kv_cache},
                          {"stopped", result.stopped},
                          {"prefill_seconds", result.prefill_seconds},
                          {"decode_seconds", result.decode_seconds},
                          {"decode_tokens_per_second", DecodeRate(result)}}));
}

int GenerateCommand::Run(Console& console) {
  Session session(common());
  const Compute compute = session.ComputeNamed(compute_);
  const ModelSource source = ModelSource::Open(model_);
  const Tokenizer tokenizer = OpenTokenizer(source);
  const std::vector<int32_t> prompt = tokenizer.Encode(prompt_, true);
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  const GenerationOptions options = OptionsFor(source, prompt_tokens);
  const KvPrecision kv = KvPrecisionNamed(kv_cache_, source);
  DecoderModel model(session.backend(), session.exec(), source, compute, kv);
  ThrowIfInterrupted();

  StreamDecoder decoder(tokenizer, true);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (!console.json()) console.Write(Console::IsTerminal() ? ForTerminal(piece) : piece);
  };
  const GenerationResult result =
      Generate(session.backend(), session.exec(), model, prompt, options, [&](int32_t id) {
        show(decoder.Next(id));
        return !Interrupted();
      });
  show(decoder.Flush());
  if (!console.json()) console.Write("\n");
  ThrowIfInterrupted();
  if (console.json()) WriteJson(console, prompt_tokens, text, Describe(kv, source), result);
  console.Note(fmt::format("{} tokens after a prompt of {} in {}; {:.1f} tokens a second{}\n",
                           FormatCount(static_cast<int64_t>(result.ids.size())),
                           FormatCount(prompt_tokens), FormatSeconds(result.prefill_seconds),
                           DecodeRate(result), result.stopped ? "; ended by the model" : ""));
  return 0;
}

}  // namespace

std::unique_ptr<Command> MakeGenerateCommand() { return std::make_unique<GenerateCommand>(); }

}  // namespace quantmill
