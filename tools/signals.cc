#include "tools/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <string_view>
#include <thread>

#include "formats/output_folder.h"
#include "kernels/core/error.h"
#include "tools/console.h"

namespace quantmill {
namespace {

std::atomic<bool> interrupted = false;

// Safe in a signal handler.
void Say(std::string_view text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

extern "C" void OnAbort(int) {
  Say("quantmill: this is a bug of quantmill; please report it with the lines above\n");
  _exit(kExitBug);
}

extern "C" void OnBusError(int) {
  Say("quantmill: a file that was being read became shorter, or its disk failed\n");
  _exit(static_cast<int>(ErrorCode::kEnvironment));
}

// A thread of its own, not a handler: removing folders takes locks and memory.
void WaitForSignals(sigset_t signals) {
  int signal = 0;
  while (sigwait(&signals, &signal) == 0) {
    if (interrupted.exchange(true)) {
      OutputFolder::RemoveAllPartial();
      if (isatty(STDERR_FILENO) == 1) Say("\nquantmill: interrupted\n");
      _exit(static_cast<int>(ErrorCode::kInterrupted));
    }
    if (isatty(STDERR_FILENO) == 1) {
      Say("\nstopping after this step; once more to stop at once\n");
    }
  }
}

void Handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}

}  // namespace

void InstallSignalHandling() {
  Handle(SIGPIPE, SIG_IGN);
  Handle(SIGXFSZ, SIG_IGN);  // writing says EFBIG
  Handle(SIGABRT, OnAbort);
  Handle(SIGBUS, OnBusError);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction inherited {};
    sigaction(signal, nullptr, &inherited);
    // A blocked signal reaches sigwait even if it is ignored, so it must not be in the set.
    if (inherited.sa_handler != SIG_IGN) sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(WaitForSignals, signals).detach();
}

bool Interrupted() { return interrupted.load(); }

void ThrowIfInterrupted() {
  if (Interrupted()) throw Error(ErrorCode::kInterrupted, "", "interrupted");
}

}  // namespace quantmill
