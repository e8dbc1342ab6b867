// What a subcommand is: flags that live in an object, and a Run.
#ifndef QUANTMILL_TOOLS_COMMAND_H_
#define QUANTMILL_TOOLS_COMMAND_H_

#include <memory>
#include <string>
#include <vector>

#include "tools/console.h"
#include "tools/flag_set.h"

namespace quantmill {

// Flags that every subcommand has.
struct CommonFlags {
  bool json = false;
  bool quiet = false;
  int threads = 0;  // 0: all CPUs of this process
  std::string device = "auto";
};

class Command {
 public:
  virtual ~Command() = default;
  // Adds the subcommand to `app`. Its flags are fields of this object, which must outlive `app`.
  virtual FlagSet Register(CLI::App& app) = 0;
  // Does what the parsed flags say. Returns 0, or 1 when a verification failed; throws Error.
  // Everything for stdout goes through `console`.
  virtual int Run(Console& console) = 0;

  const CommonFlags& common() const { return common_; }

 protected:
  void AddCommonFlags(const FlagSet& command);
  CommonFlags common_;
};

std::unique_ptr<Command> MakeInspectCommand();
std::unique_ptr<Command> MakePlanCommand();
std::unique_ptr<Command> MakeRecipesCommand();
std::unique_ptr<Command> MakeQuantizeCommand();
std::unique_ptr<Command> MakeVerifyCommand();
std::unique_ptr<Command> MakeConvertCommand();
std::unique_ptr<Command> MakeImatrixCommand();
std::unique_ptr<Command> MakeEvalCommand();
std::unique_ptr<Command> MakeBenchCommand();
std::unique_ptr<Command> MakeGateCommand();
std::unique_ptr<Command> MakeGenerateCommand();

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_COMMAND_H_
