#include "tools/recipe_flags.h"

#include "quant/pipeline/recipe_draft.h"
#include "quant/pipeline/recipe_file.h"

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

}  // namespace

void RecipeFlags::Register(const FlagSet& command) {
  RegisterWhat(command);
  RegisterHow(command);
  RegisterCalibration(command);
}

void RecipeFlags::RegisterWhat(const FlagSet& command) {
  const char* group = "What to make";
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.Add(flag, value, help).Group(group);
  };
  add("--recipe", recipe_,
      "file, or built-in recipe ('quantmill recipes'\nlists them); flags override it")
      .ValueName("NAME");
  add("--scheme", scheme_,
      "w2a16 w3a16 w4a16 w5a16 w6a16 w8a16 w8a8\nw8a8-static w8a8-static-asym fp8 fp8-tensor\n"
      "fp8-static fp8-block mxfp4 nvfp4; default: w4a16")
      .ValueName("NAME");
  add("--group-size", group_size_,
      "inputs that share a scale; default: 128\nbelow 8 bits, channel for w8a16")
      .ValueName("32|64|128|channel");
  command.AddSwitch("--asymmetric", asymmetric_, "store zero points").Group(group);
  add("--rule", rules_,
      "layers that match from the start of their\nname; SCHEME[:gN|:channel][:asym] or dense;\n"
      "repeat: the last match wins")
      .ValueName("REGEX=SCHEME")
      .Repeats();
  add("--keep-dense", keep_dense_, "the same as --rule REGEX=dense").ValueName("REGEX").Repeats();
  add("--budget", budget_,
      "bits for each layer: 4.5bits on average, or\nthe fewest with \"kl<=0.05\" or\n"
      "\"perplexity<=+1%\", measured")
      .ValueName("LIMIT");
  command.AddSwitch("--quantize-head", quantize_head_, "lm_head too, in 8 bits (untied models)")
      .Group(group);
  add("--kv-scheme", kv_scheme_, "scales of an FP8 cache, for each layer or\nhead; default: none")
      .OneOf({"none", "fp8", "fp8-head"});
  add("--target", target_, "vllm, sglang, transformers or llama.cpp: refuse\nwhat it cannot load")
      .ValueName("STACK");
  add("--tp", tensor_parallel_, "processes that share each layer there;\ndefault: 1")
      .IntegerIn(kTensorParallelRange);
  add("--format", format_, "gptq, gptq_v2, awq, fp8 or gguf; default:\ncompressed-tensors")
      .ValueName("NAME");
  add("--gguf-type", gguf_type_, "gguf: type of the layers; default: q4_k_m").ValueName("NAME");
  add("--embedding-type", embedding_type_, "gguf: type of embedding and head").ValueName("NAME");
  add("--gguf-pre", gguf_pre_, "gguf: llama.cpp's name for the pre-tokenizer,\nif it is not found")
      .ValueName("NAME");
}

void RecipeFlags::RegisterHow(const FlagSet& command) {
  const char* group = "How to make it";
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.Add(flag, value, help).Group(group);
  };
  add("--method", method_,
      "gptq, rtn, awq[+gptq|+rtn] or\nsmoothquant[+gptq|+rtn]; default: smoothquant\n"
      "for w8a8, rtn for fp8, otherwise gptq")
      .ValueName("NAME");
  add("--effort", effort_,
      "fast: the published methods, on one stream\nof activations; default: best")
      .OneOf({"best", "fast"});
  command
      .AddSwitch(
          "--rotate", rotate_,
          "turn the model's inner basis first, so that\nno channel stands out; unties lm_head")
      .Group(group);
  add("--smoothing-alpha", smoothing_alpha_,
      "smoothquant: one strength for all layers;\ndefault: searched for each")
      .NumberIn(0, 1);
  command.AddSwitch("--no-act-order", no_act_order_, "gptq: solve columns as they are stored")
      .Group(group);
  add("--damp-percent", damp_percent_,
      "gptq: share of the mean diagonal that is added\nto it; default: 0.01")
      .NumberIn(0, 1);
  add("--max-fallbacks", max_fallbacks_, "more of them fail; default: 0")
      .IntegerIn(kFallbacksRange);
  add("--max-host-mem", max_host_mem_, "budget, such as 2GiB; default: none").ValueName("SIZE");
  add("--max-gpu-mem", max_gpu_mem_, "the same of GPU memory; default: 90 % of it")
      .ValueName("SIZE");
}

void RecipeFlags::RegisterCalibration(const FlagSet& command) {
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.Add(flag, value, help).Group("Calibration");
  };
  add("--calib", calib_, "text, .json or .jsonl; default: the bundled\ntext, or none for rtn")
      .ValueName("FILE");
  add("--samples", samples_, "windows; default: 128").IntegerIn(kSamplesRange);
  add("--sequence-length", sequence_length_, "tokens of a window; default: 512")
      .IntegerIn(kSequenceLengthRange);
  add("--calib-seed", calib_seed_, "draw windows; default: the first ones").IntegerIn(kSeedRange);
  add("--compute", compute_, "type of the forward; default: auto").OneOf({"auto", "f32", "bf16"});
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
  flags.max_gpu_mem = SaidBy("--max-gpu-mem", max_gpu_mem_);
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
