// One line on the terminal that says how far the work is.
#ifndef QUANTMILL_TOOLS_PROGRESS_H_
#define QUANTMILL_TOOLS_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace quantmill {

struct ProgressState {
  std::string phase;  // "quantizing"
  int64_t done = 0;
  int64_t total = 0;
  double tokens_per_second = 0;  // 0: not known
  std::string detail;            // what is being worked on
};

// At most `columns` wide: phase, bar, counts, elapsed and remaining time, rate, resident memory,
// and as much of the detail as fits. resident_bytes 0: not known.
std::string RenderProgress(const ProgressState& state, double elapsed_seconds,
                           int64_t resident_bytes, size_t columns);

// Draws on stderr, at most ten times a second; draws nothing when not `enabled`. Not thread-safe.
class ProgressLine {
 public:
  explicit ProgressLine(bool enabled) : enabled_(enabled) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { Clear(); }

  // Times are those of the phase: they begin anew when `state.phase` changes.
  void Update(const ProgressState& state);
  // Wipes the line. Before anything else is printed.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool enabled_;
  bool drawn_ = false;
  std::string phase_;
  Clock::time_point phase_start_;
  Clock::time_point last_draw_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_PROGRESS_H_
