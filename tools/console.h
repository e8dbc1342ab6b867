// stdout for results, stderr for everything said beside them.
#ifndef QUANTMILL_TOOLS_CONSOLE_H_
#define QUANTMILL_TOOLS_CONSOLE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/core/error.h"
#include "quant/report/json.h"
#include "quant/report/text.h"

namespace quantmill {

inline constexpr int kExitBug = 70;

// Thrown when the reader of stdout has gone (`quantmill ... | head`): not an error, the command
// ends.
struct OutputClosed {};

// With `json`, stdout carries one JSON document and nothing else. With `quiet`, stderr carries
// errors and nothing else. Not thread-safe.
class Console {
 public:
  Console(bool json, bool quiet) : json_(json), quiet_(quiet) {}

  bool json() const { return json_; }
  // Whether a progress line may be drawn: stderr is a terminal and not `quiet`.
  bool shows_progress() const;
  // Whether stdout is a terminal.
  static bool IsTerminal();

  // All of `text` to stdout at once. Throws OutputClosed, or Error(kEnvironment) (a full disk).
  void Write(std::string_view text) const;
  // A report as text or as JSON.
  template <typename Report>
  void WriteReport(const Report& report) const {
    Write(json_ ? JsonText(ToJson(report)) : ToText(report, {.color = IsTerminal()}));
  }
  // To stderr, unless quiet. `text` ends with a newline.
  void Note(std::string_view text) const;
  // One line on stderr, always; with `json` also {"error": {code, kind, where, message}} on stdout.
  void WriteError(const Error& error) const;
  // The same for what should never happen.
  void WriteBug(std::string_view message) const;

 private:
  void WriteFailure(int code, const char* kind, const std::string& where,
                    const std::string& message) const;

  bool json_;
  bool quiet_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_CONSOLE_H_
