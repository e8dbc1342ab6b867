// quantmill recipes: the built-in recipes.
#include <fmt/format.h>

#include <string>

#include "kernels/core/error.h"
#include "quant/pipeline/recipe_presets.h"
#include "quant/report/spelling.h"
#include "tools/command.h"

namespace quantmill {
namespace {

class RecipesCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "recipes", "list the built-in recipes, or print one");
    command.Add("NAME", name_, "print this one, as a file to start from").ValueName("");
    AddCommonFlags(command);
    command.Footer(
        "A recipe is named with --recipe, or included in a file of your own.\n\n"
        "Example: start from one\n"
        "  quantmill recipes w4a16-gptq > mine.yaml\n"
        "  quantmill quantize calib_data/sample_model -o sample-w4 --recipe mine.yaml");
    return command;
  }

  int Run(Console& console) override {
    console.Write(name_.empty() ? List(console.json()) : Print(console.json()));
    return 0;
  }

 private:
  static std::string List(bool as_json) {
    if (as_json) {
      nlohmann::ordered_json list = nlohmann::ordered_json::array();
      for (const Preset& preset : Presets()) {
        list.push_back({{"name", preset.name}, {"summary", preset.summary}});
      }
      return JsonText(list);
    }
    std::string text;
    for (const Preset& preset : Presets()) {
      text += fmt::format("{:<18}{}\n", preset.name, preset.summary);
    }
    return text;
  }

  std::string Print(bool as_json) const {
    const Preset* preset = FindPreset(name_);
    if (preset == nullptr) {
      throw Error(ErrorCode::kUsage, "NAME",
                  fmt::format("no built-in recipe is called '{}'{}", name_,
                              Suggestion(name_, PresetNames())));
    }
    if (!as_json) return fmt::format("# {}: {}\n{}", preset->name, preset->summary, preset->yaml);
    return JsonText({{"name", preset->name}, {"summary", preset->summary}, {"yaml", preset->yaml}});
  }

  std::string name_;
};

}  // namespace

std::unique_ptr<Command> MakeRecipesCommand() { return std::make_unique<RecipesCommand>(); }

}  // namespace quantmill
