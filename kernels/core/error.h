// Errors of quantmill. Two kinds (docs: CONTRIBUTING.md, "Errors"):
//   * the world is wrong (a file, a flag, a full disk): throw Error; caught only in tools/.
//   * the program is wrong: Check(), always on, prints and aborts.
#ifndef QUANTMILL_KERNELS_CORE_ERROR_H_
#define QUANTMILL_KERNELS_CORE_ERROR_H_

#include <exception>
#include <source_location>
#include <string>
#include <string_view>

namespace quantmill {

// Numbers are the process exit codes of tools/.
enum class ErrorCode {
  kVerification = 1,  // a gate or a verification failed
  kUsage = 2,         // flags or recipe
  kBadInput = 3,      // a file's content; `where` names file, tensor, byte offset
  kEnvironment = 4,   // disk full, no GPU, out of the memory budget
  kResumable = 75,    // kInterrupted, but what is finished is kept for the next run
  kInterrupted = 130  // SIGINT or SIGTERM
};

// One failure of the outside world. `where` names the file, tensor or flag (with a byte offset if
// one is known); `what` says what is wrong and, where it can, what to do next.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string where, std::string what);

  ErrorCode code() const { return code_; }
  const std::string& where() const { return where_; }
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return full_.c_str(); }  // "where: message"

 private:
  ErrorCode code_;
  std::string where_;
  std::string message_;
  std::string full_;
};

// Prints the location and message to stderr and aborts (exit code of tools/: 70 by handler).
[[noreturn]] void CheckFailed(std::string_view message, const std::source_location& location);

// A condition that only a bug in this program can break. Always on; not for inner loops.
inline void Check(bool condition, std::string_view message,
                  const std::source_location& location = std::source_location::current()) {
  if (!condition) [[unlikely]]
    CheckFailed(message, location);
}

// Check for inner loops: compiled out under NDEBUG.
#ifdef NDEBUG
inline void DCheck(bool, std::string_view) {}
#else
inline void DCheck(bool condition, std::string_view message,
                   const std::source_location& location = std::source_location::current()) {
  Check(condition, message, location);
}
#endif

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_ERROR_H_
