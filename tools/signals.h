// Ctrl-C and its kin. The first one asks the command to stop at its next step; a second one stops
// the process at once. Either way no partial output is left.
#ifndef QUANTMILL_TOOLS_SIGNALS_H_
#define QUANTMILL_TOOLS_SIGNALS_H_

namespace quantmill {

// Call first in main: threads made before would not have the signals blocked.
//   SIGINT, SIGTERM, SIGHUP  set Interrupted(); the second removes partial outputs and exits 130.
//                            Those that the parent process ignores (nohup, `&`) stay ignored.
//   SIGPIPE, SIGXFSZ         ignored: writing says EPIPE, EFBIG.
//   SIGABRT                  exits 70: a failed Check.
//   SIGBUS                   exits 4: a mapped input file shrank, or its disk failed.
void InstallSignalHandling();

// True from the first SIGINT, SIGTERM or SIGHUP on. Any thread.
bool Interrupted();

// Throws Error(kInterrupted) then.
void ThrowIfInterrupted();

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_SIGNALS_H_
