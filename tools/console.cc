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
    case ErrorCode::kResumable:
      return "resumable";
    case ErrorCode::kInterrupted:
      return "interrupted";
  }
  return "";
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
  WriteFailure(static_cast<int>(error.code()), KindOf(error.code()), error.where(),
               error.message());
}

void Console::WriteBug(std::string_view message) const {
  WriteFailure(kExitBug, "bug", "internal error",
               std::string(message) + "; this is a bug of quantmill, please report it");
}

void Console::WriteFailure(int code, const char* kind, const std::string& where,
                           const std::string& message) const {
  const std::string line = where.empty() ? message : where + ": " + message;
  WriteAll(STDERR_FILENO, "quantmill: " + OnOneLine(line) + "\n");
  if (!json_) return;
  const nlohmann::ordered_json json = {
      {"error", {{"code", code}, {"kind", kind}, {"where", where}, {"message", message}}}};
  WriteAll(STDOUT_FILENO, JsonText(json));
}

}  // namespace quantmill
