// Adds the time of a scope to a running total.
#ifndef QUANTMILL_QUANT_PIPELINE_STOPWATCH_H_
#define QUANTMILL_QUANT_PIPELINE_STOPWATCH_H_

#include <chrono>

namespace quantmill {

class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_STOPWATCH_H_
