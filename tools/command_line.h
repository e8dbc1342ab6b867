// argv -> a command with its flags set.
#ifndef QUANTMILL_TOOLS_COMMAND_LINE_H_
#define QUANTMILL_TOOLS_COMMAND_LINE_H_

#include <memory>
#include <string>
#include <vector>

#include "tools/command.h"

namespace quantmill {

// What argv asks for: a command to run, what this binary is, or a text to print.
struct Request {
  Command* command = nullptr;  // owned by the CommandLine
  bool version = false;        // --version
  std::string text;            // --help; without a command
};

class CommandLine {
 public:
  CommandLine();
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // Call once. Throws Error(kUsage) with the flag and, for a misspelling, the name that is nearest.
  Request Parse(int argc, const char* const* argv);
  // For a command line without any command.
  std::string ShortHelp() const;

 private:
  std::vector<std::unique_ptr<Command>> commands_;
  std::vector<CLI::App*> subcommands_;  // of each command, in the same order
  std::unique_ptr<CLI::App> app_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_COMMAND_LINE_H_
