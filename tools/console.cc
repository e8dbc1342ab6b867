#include "tools/console.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "quant/report/layout.h"

namespace quantmill {
namespace {

// Returns 0 or errno.
int WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

// As scripts compare it.
const char* KindOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kVerification:
      return "verification";
    case ErrorCode::kUsage:
      return "usage";
    case ErrorCode::kBadInput:
      return "bad_input";
    case ErrorCode::kEnvironment:
      return "environment";
    case ErrorCode::kInterrupted:
      return "interrupted";
  }
  return "bug";
}

// Lists inside a message become part of its one line.
std::string OnOneLine(std::string_view text) {
  std::string line;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\n') {
      line += text[i];
      continue;
    }
    line += line.ends_with(':') ? " " : ", ";
    while (i + 1 < text.size() && text[i + 1] == ' ') ++i;
  }
  return Printable(line);
}

}  // namespace

bool Console::shows_progress() const {
  const char* terminal = std::getenv("TERM");
  const bool dumb = terminal != nullptr && std::strcmp(terminal, "dumb") == 0;
  return !quiet_ && !dumb && isatty(STDERR_FILENO) == 1;
}

bool Console::IsTerminal() { return isatty(STDOUT_FILENO) == 1; }

void Console::Write(std::string_view text) const {
  const int error = WriteAll(STDOUT_FILENO, text);
  if (error == 0) return;
  if (error == EPIPE) throw OutputClosed{};
  throw Error(ErrorCode::kEnvironment, "standard output",
              std::string("cannot be written: ") + std::strerror(error));
}

void Console::Note(std::string_view text) const {
  if (!quiet_) WriteAll(STDERR_FILENO, text);  // nobody to tell if that fails
}

void Console::WriteError(const Error& error) const {
  WriteAll(STDERR_FILENO, "quantmill: " + OnOneLine(error.what()) + "\n");
  if (!json_) return;
  const nlohmann::ordered_json json = {{"error",
                                        {{"code", static_cast<int>(error.code())},
                                         {"kind", KindOf(error.code())},
                                         {"where", error.where()},
                                         {"message", error.message()}}}};
  WriteAll(STDOUT_FILENO, JsonText(json));
}

}  // namespace quantmill
