#include "kernels/core/error.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace quantmill {

Error::Error(ErrorCode code, std::string where, std::string what)
    : code_(code),
      where_(std::move(where)),
      message_(std::move(what)),
      full_(where_.empty() ? message_ : where_ + ": " + message_) {}

void CheckFailed(std::string_view message, const std::source_location& location) {
  std::fprintf(stderr, "quantmill: internal error at %s:%u: %.*s\n", location.file_name(),
               static_cast<unsigned>(location.line()), static_cast<int>(message.size()),
               message.data());
  std::abort();
}

}  // namespace quantmill
