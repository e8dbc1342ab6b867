#include "tools/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

#include "kernels/core/error.h"
#include "quant/report/spelling.h"

namespace quantmill {
namespace {

// The width of the column of flags in --help, which leaves room for descriptions in 80 columns.
constexpr size_t kFlagColumn = 28;

std::vector<std::string> FlagNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// CLI11's help, with one empty line between groups.
std::string HelpText(const CLI::App& app) {
  std::string text = app.help();
  for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  while (text.ends_with("\n\n")) text.pop_back();
  return text.ends_with("\n") ? text : text + "\n";
}

// Where CLI11's words are about its own counting: what the user did.
std::string MessageOf(const CLI::ParseError& error) {
  std::string text = error.what();
  const size_t name = text.find(": ");
  if (name == std::string::npos) return text;
  if (text.find(": 1 required ") == name && text.ends_with(" missing")) {
    return text.substr(0, name) + ": needs a value";
  }
  if (text.find(": At Most 1 required but received ") == name) {
    return text.substr(0, name) + ": was given more than once";
  }
  return text;
}

// A word that nothing on the command line takes.
[[noreturn]] void ThrowUnexpected(const std::string& word, const CLI::App& command,
                                  const std::string& where) {
  const bool is_flag = word.starts_with("-");
  const std::vector<std::string> flags = FlagNames(command);
  if (std::ranges::find(flags, word) != flags.end()) {
    throw Error(ErrorCode::kUsage, where, fmt::format("'{}' belongs behind the command", word));
  }
  const std::string hint = is_flag ? Suggestion(word, flags) : "";
  throw Error(
      ErrorCode::kUsage, where,
      fmt::format("{} '{}'{}", is_flag ? "unknown flag" : "unexpected argument", word, hint));
}

}  // namespace

void Command::AddCommonFlags(const FlagSet& command) {
  const char* group = "Common flags";
  command.AddSwitch("--json", common_.json, "print JSON on stdout and nothing else").Group(group);
  command.AddSwitch("--quiet", common_.quiet, "no progress and no notes on stderr").Group(group);
  command.Add("--threads", common_.threads, "default: all CPUs of this process")
      .IntegerIn(1, 1024)
      .Group(group);
  command.Add("--device", common_.device, "default: auto")
      .OneOf({"auto", "cpu", "cuda"})
      .Group(group);
}

CommandLine::CommandLine()
    : app_(std::make_unique<CLI::App>(
          "Quantizes language models, checks what it wrote, and measures what that cost.",
          "quantmill")) {
  app_->get_formatter()->column_width(kFlagColumn);
  app_->get_formatter()->label("REQUIRED", "(required)");
  // Its text is made by whoever knows whether it is to be JSON.
  app_->set_version_flag("--version", "", "print version, build, CPU and formats");
  app_->set_help_flag("-h,--help", "print this help");
  app_->footer(
      "'quantmill COMMAND --help' shows the flags of a command and an example.\n\n"
      "Exit codes: 0 done, 1 verification failed, 2 usage, 3 bad input,\n"
      "4 environment (disk, memory, device), 70 bug, 75 interrupted but\n"
      "quantize --resume goes on, 130 interrupted.");
  commands_.push_back(MakeInspectCommand());
  commands_.push_back(MakePlanCommand());
  commands_.push_back(MakeRecipesCommand());
  commands_.push_back(MakeQuantizeCommand());
  commands_.push_back(MakeConvertCommand());
  commands_.push_back(MakeImatrixCommand());
  commands_.push_back(MakeVerifyCommand());
  commands_.push_back(MakeEvalCommand());
  commands_.push_back(MakeBenchCommand());
  commands_.push_back(MakeGateCommand());
  commands_.push_back(MakeGenerateCommand());
  for (const auto& command : commands_) subcommands_.push_back(command->Register(*app_).app());
}

CommandLine::~CommandLine() = default;

std::string CommandLine::ShortHelp() const {
  std::string text = "usage: quantmill COMMAND ...\n\n";
  for (const CLI::App* subcommand : subcommands_) {
    text += fmt::format("  {:<10}{}\n", subcommand->get_name(), subcommand->get_description());
  }
  return text + "\n'quantmill COMMAND --help' shows its flags and an example.\n";
}

Request CommandLine::Parse(int argc, const char* const* argv) {
  std::string where;
  const CLI::App* command = app_.get();
  const auto find_command = [&] {
    for (size_t i = 0; i < subcommands_.size(); ++i) {
      if (!subcommands_[i]->parsed()) continue;
      command = subcommands_[i];
      where = subcommands_[i]->get_name();
      return commands_[i].get();
    }
    return static_cast<Command*>(nullptr);
  };
  try {
    app_->parse(argc, argv);
    return {find_command(), false, ""};
  } catch (const CLI::CallForHelp&) {
    return {nullptr, false, HelpText(*app_)};
  } catch (const CLI::CallForVersion&) {
    return {nullptr, true, ""};
  } catch (const CLI::ParseError& error) {
    find_command();
    const std::vector<std::string> rest = app_->remaining(true);
    if (!rest.empty() && where.empty() && !rest[0].starts_with("-")) {
      std::vector<std::string> names;
      names.reserve(subcommands_.size());
      for (const CLI::App* subcommand : subcommands_) names.push_back(subcommand->get_name());
      throw Error(ErrorCode::kUsage, "",
                  fmt::format("unknown command '{}'{}", rest[0], Suggestion(rest[0], names)));
    }
    if (!rest.empty()) ThrowUnexpected(rest[0], *command, where);
    throw Error(ErrorCode::kUsage, where, MessageOf(error));
  }
}

}  // namespace quantmill
