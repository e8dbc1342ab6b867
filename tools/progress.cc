#include "tools/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "quant/report/layout.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

constexpr int64_t kBarCells = 12;    // leaves room for the detail in 80 columns
constexpr size_t kLeastDetail = 12;  // less of a name says nothing
constexpr auto kRedraw = std::chrono::milliseconds(100);

// Bytes of memory that this process has now; 0 where /proc does not tell.
int64_t ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  int64_t size = 0;
  int64_t resident = 0;
  const int fields = std::fscanf(file, "%ld %ld", &size, &resident);
  std::fclose(file);
  return fields == 2 ? resident * sysconf(_SC_PAGESIZE) : 0;
}

size_t TerminalColumns() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kTextColumns;
}

std::string Bar(int64_t done, int64_t total) {
  const int64_t filled =
      total > 0 ? std::clamp<int64_t>(done * kBarCells / total, 0, kBarCells) : 0;
  return std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(kBarCells - filled), '-');
}

void Print(const std::string& text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

std::string RenderProgress(const ProgressState& state, double elapsed_seconds,
                           int64_t resident_bytes, size_t columns) {
  std::string line = fmt::format("{} [{}] {}/{}  {}", state.phase, Bar(state.done, state.total),
                                 state.done, state.total, FormatClock(elapsed_seconds));
  if (state.done > 0 && state.done < state.total) {
    const double each = elapsed_seconds / static_cast<double>(state.done);
    line += ", " + FormatClock(each * static_cast<double>(state.total - state.done)) + " left";
  }
  if (state.tokens_per_second > 0) {
    line += "  " + FormatCount(static_cast<int64_t>(state.tokens_per_second)) + " tok/s";
  }
  if (resident_bytes > 0) line += "  " + FormatBytes(resident_bytes);
  const size_t used = DisplayWidth(line) + 2;
  if (!state.detail.empty() && used + kLeastDetail <= columns) {
    line += "  " + Elide(Printable(state.detail), columns - used);
  }
  return Elide(line, columns);
}

void ProgressLine::Update(const ProgressState& state) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (state.phase != phase_) {
    phase_ = state.phase;
    phase_start_ = now;
  } else if (drawn_ && now - last_draw_ < kRedraw) {
    return;
  }
  last_draw_ = now;
  drawn_ = true;
  const double elapsed = std::chrono::duration<double>(now - phase_start_).count();
  // The last column stays free: some terminals wrap when it is written.
  const size_t columns = TerminalColumns() - 1;
  Print("\r" + RenderProgress(state, elapsed, ResidentBytes(), columns) + "\x1b[K");
}

void ProgressLine::Clear() {
  if (drawn_) Print("\r\x1b[K");
  drawn_ = false;
}

}  // namespace quantmill
