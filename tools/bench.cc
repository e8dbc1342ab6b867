// quantmill bench: how fast models serve, side by side.
#include <charconv>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "quant/runtime/kv_precision.h"
#include "tools/benchmarking.h"
#include "tools/command.h"
#include "tools/flag_set.h"
#include "tools/session.h"

namespace quantmill {
namespace {

// "1,4,8"
std::vector<int64_t> ParseBatches(const std::string& text) {
  std::vector<int64_t> batches;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    int64_t batch = 0;
    const auto [rest, error] = std::from_chars(at, end, batch);
    if (error != std::errc() || batch < 1 || batch > 4096 || (rest != end && *rest != ',')) {
      throw Error(ErrorCode::kUsage, "--batch",
                  "'" + text + "' is no list of whole numbers from 1 to 4096, such as 1,4,8");
    }
    batches.push_back(batch);
    if (rest == end) return batches;
    at = rest + 1;
  }
}

class BenchCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "bench", "speed of prompts and tokens, side by side");
    const auto add = [&](const char* flag, auto& value, const char* help) {
      return command.Add(flag, value, help);
    };
    add("MODEL", flags_.models, "checkpoints or artifacts").Required().ValueName("");
    add("--reference", flags_.reference, "tell how many times faster than this").ValueName("MODEL");
    add("--batch", batches_, "sequences at once; default: 1,4,8").ValueName("LIST");
    add("--prompt-tokens", flags_.prompt_tokens, "of each; default: 512").IntegerIn(1, 10'000'000);
    add("--decode-tokens", flags_.decode_tokens, "of each; default: 64").IntegerIn(2, 10'000'000);
    add("--runs", flags_.runs, "default: 3, whose medians count").IntegerIn(1, 1000);
    add("--compute", flags_.compute, "default: auto").OneOf({"auto", "f32", "bf16"});
    add("--kv-cache", flags_.kv_cache, "keys and values; default: auto, as the\nmodel says")
        .OneOf(KvPrecisionNames());
    AddCommonFlags(command);
    command.Footer(
        "Times of this runtime, which is a reference and no server: they tell what the\n"
        "bytes saved are worth here, not what another engine reaches.\n\n"
        "Example: four bits beside sixteen\n"
        "  quantmill bench sample-w4 --reference calib_data/sample_model \\\n"
        "      --prompt-tokens 128");
    return command;
  }

  int Run(Console& console) override {
    if (!batches_.empty()) flags_.batches = ParseBatches(batches_);
    Session session(common());
    console.WriteReport(BenchmarkModels(flags_, session, console));
    return 0;
  }

 private:
  BenchmarkFlags flags_;
  std::string batches_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchCommand() { return std::make_unique<BenchCommand>(); }

}  // namespace quantmill
