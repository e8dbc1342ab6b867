#include "tools/recipe_flags.h"

#include "quant/pipeline/recipe_draft.h"
#include "quant/pipeline/recipe_file.h"
#include "tools/flags.h"

namespace quantmill {
namespace {

template <typename T>
Maybe<T> SaidBy(const char* flag, const std::optional<T>& value) {
  if (!value) return std::nullopt;
  return Said<T>{*value, flag};
}

Maybe<bool> SaidBy(const char* flag, bool given, bool means) {
  if (!given) return std::nullopt;
  return Said<bool>{means, flag};
}

CLI::Option* TakesInteger(CLI::Option* option, const IntegerRange& range) {
  return quantmill::TakesInteger(option, range.low, range.high);
}

}  // namespace

void RecipeFlags::Register(CLI::App& command) {
  RegisterWhat(command);
  RegisterHow(command);
  RegisterCalibration(command);
}

void RecipeFlags::RegisterWhat(CLI::App& command) {
  const char* group = "What to make";
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.add_option(flag, value, help)->group(group);
  };
  add("--recipe", recipe_,
      "file, or built-in recipe ('quantmill recipes'\nlists them); flags override it")
      ->type_name("NAME");
  add("--scheme", scheme_,
      "w2a16 w3a16 w4a16 w5a16 w6a16 w8a16 w8a8\nw8a8-static w8a8-static-asym fp8 fp8-tensor\n"
      "fp8-static fp8-block mxfp4 nvfp4; default: w4a16")
      ->type_name("NAME");
  add("--group-size", group_size_,
      "inputs that share a scale; default: 128\nbelow 8 bits, channel for w8a16")
      ->type_name("32|64|128|channel");
  command.add_flag("--asymmetric", asymmetric_, "store zero points")->group(group);
  add("--rule", rules_,
      "layers that match from the start of their\nname; SCHEME[:gN|:channel][:asym] or dense;\n"
      "repeat: the last match wins")
      ->type_name("REGEX=SCHEME")
      ->expected(1)
      ->take_all();
  add("--keep-dense", keep_dense_, "the same as --rule REGEX=dense")
      ->type_name("REGEX")
      ->expected(1)
      ->take_all();
  add("--budget", budget_,
      "bits for each layer: 4.5bits on average, or\nthe fewest with \"kl<=0.05\" or\n"
      "\"perplexity<=+1%\", measured")
      ->type_name("LIMIT");
  command.add_flag("--quantize-head", quantize_head_, "lm_head too, in 8 bits (untied models)")
      ->group(group);
  TakesOneOf(add("--kv-scheme", kv_scheme_,
                 "scales of an FP8 cache, for each layer or\nhead; default: none"),
             {"none", "fp8", "fp8-head"});
  add("--target", target_, "vllm, sglang or transformers: refuse what it\ncannot load")
      ->type_name("STACK");
  TakesInteger(add("--tp", tensor_parallel_, "processes that share each layer there;\ndefault: 1"),
               kTensorParallelRange);
  add("--format", format_, "gptq, gptq_v2, awq, fp8 or gguf; default:\ncompressed-tensors")
      ->type_name("NAME");
  add("--gguf-type", gguf_type_, "gguf: type of the layers; default: q4_k_m")->type_name("NAME");
  add("--embedding-type", embedding_type_, "gguf: type of embedding and head")->type_name("NAME");
  add("--gguf-pre", gguf_pre_, "gguf: llama.cpp's name for the pre-tokenizer,\nif it is not found")
      ->type_name("NAME");
}

void RecipeFlags::RegisterHow(CLI::App& command) {
  const char* group = "How to make it";
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.add_option(flag, value, help)->group(group);
  };
  add("--method", method_,
      "gptq, rtn, awq[+gptq|+rtn] or\nsmoothquant[+gptq|+rtn]; default: smoothquant\n"
      "for w8a8, rtn for fp8, otherwise gptq")
      ->type_name("NAME");
  TakesOneOf(add("--effort", effort_,
                 "fast: the published methods, on one stream\nof activations; default: best"),
             {"best", "fast"});
  command
      .add_flag(
          "--rotate", rotate_,
          "turn the model's inner basis first, so that\nno channel stands out; unties lm_head")
      ->group(group);
  TakesNumber(add("--smoothing-alpha", smoothing_alpha_,
                  "smoothquant: one strength for all layers;\ndefault: searched for each"),
              0, 1);
  command.add_flag("--no-act-order", no_act_order_, "gptq: solve columns as they are stored")
      ->group(group);
  TakesNumber(add("--damp-percent", damp_percent_,
                  "gptq: share of the mean diagonal that is added\nto it; default: 0.01"),
              0, 1);
  TakesInteger(add("--max-fallbacks", max_fallbacks_, "more of them fail; default: 0"),
               kFallbacksRange);
  add("--max-host-mem", max_host_mem_, "budget, such as 2GiB; default: none")->type_name("SIZE");
}

void RecipeFlags::RegisterCalibration(CLI::App& command) {
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.add_option(flag, value, help)->group("Calibration");
  };
  add("--calib", calib_, "text, .json or .jsonl; default: the bundled\ntext, or none for rtn")
      ->type_name("FILE");
  TakesInteger(add("--samples", samples_, "windows; default: 128"), kSamplesRange);
  TakesInteger(add("--sequence-length", sequence_length_, "tokens of a window; default: 512"),
               kSequenceLengthRange);
  TakesInteger(add("--calib-seed", calib_seed_, "draw windows; default: the first ones"),
               kSeedRange);
  TakesOneOf(add("--compute", compute_, "type of the forward; default: auto"),
             {"auto", "f32", "bf16"});
}

Recipe RecipeFlags::Resolve() const {
  RecipeDraft draft;
  if (!recipe_.empty()) draft = LoadRecipe(recipe_);
  RecipeDraft flags;
  flags.scheme = SaidBy("--scheme", scheme_);
  flags.group_size = SaidBy("--group-size", group_size_);
  flags.asymmetric = SaidBy("--asymmetric", asymmetric_, true);
  for (const std::string& rule : rules_) flags.rules.push_back(ParseRule(rule));
  for (const std::string& pattern : keep_dense_) {
    flags.rules.push_back({pattern, "dense", "--keep-dense " + pattern});
  }
  flags.rotate = SaidBy("--rotate", rotate_, true);
  flags.budget = SaidBy("--budget", budget_);
  flags.quantize_head = SaidBy("--quantize-head", quantize_head_, true);
  flags.method = SaidBy("--method", method_);
  flags.effort = SaidBy("--effort", effort_);
  flags.smoothing_alpha = SaidBy("--smoothing-alpha", smoothing_alpha_);
  flags.kv_scheme = SaidBy("--kv-scheme", kv_scheme_);
  flags.format = SaidBy("--format", format_);
  flags.gguf_type = SaidBy("--gguf-type", gguf_type_);
  flags.embedding_type = SaidBy("--embedding-type", embedding_type_);
  flags.gguf_pre = SaidBy("--gguf-pre", gguf_pre_);
  flags.target = SaidBy("--target", target_);
  flags.tensor_parallel = SaidBy("--tp", tensor_parallel_);
  flags.act_order = SaidBy("--no-act-order", no_act_order_, false);
  flags.damp_percent = SaidBy("--damp-percent", damp_percent_);
  flags.calib = SaidBy("--calib", calib_);
  flags.samples = SaidBy("--samples", samples_);
  flags.sequence_length = SaidBy("--sequence-length", sequence_length_);
  flags.calib_seed = SaidBy("--calib-seed", calib_seed_);
  flags.compute = SaidBy("--compute", compute_);
  flags.max_host_mem = SaidBy("--max-host-mem", max_host_mem_);
  flags.max_fallbacks = SaidBy("--max-fallbacks", max_fallbacks_);
  Override(draft, flags);
  return ResolveRecipe(draft);
}

void RecipeFlags::NoteUnused(const Recipe& recipe, const Console& console) const {
  const auto note = [&](bool given, const char* flag, const char* why) {
    if (given) console.Note(std::string("note: ") + flag + " is not used: " + why + "\n");
  };
  const char* no_text = "rtn reads no calibration text unless --calib names one";
  if (!recipe.calibrated()) {
    note(samples_.has_value(), "--samples", no_text);
    note(sequence_length_.has_value(), "--sequence-length", no_text);
    note(calib_seed_.has_value(), "--calib-seed", no_text);
    note(compute_.has_value(), "--compute", no_text);
    note(effort_.has_value(), "--effort", no_text);
  }
  if (recipe.method == Method::kGptq) return;
  note(no_act_order_, "--no-act-order", "it is for gptq");
  note(damp_percent_.has_value(), "--damp-percent", "it is for gptq");
}

}  // namespace quantmill
