// Weights on their way to a device while it works on others.
#ifndef QUANTMILL_QUANT_RUNTIME_BACKGROUND_LOADER_H_
#define QUANTMILL_QUANT_RUNTIME_BACKGROUND_LOADER_H_

#include <future>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>

#include "kernels/ops.h"
#include "kernels/own_exec.h"

namespace quantmill {

// Loads run one at a time: with `ahead`, on a thread and an Exec of their own, beside the caller's
// work; without it, on the caller's Exec, when the result is asked for. The results are the same.
class BackgroundLoader {
 public:
  // Borrows both. Must outlive the futures that it gives.
  BackgroundLoader(Backend& backend, Exec& exec, bool ahead) : exec_(exec) {
    if (ahead) beside_ = std::make_unique<OwnExec>(backend);
  }

  // The future of load(Exec&): what it returns, which the device has then done, or throws. `load`
  // is copied; what it refers to must live until the future has been waited for (its destructor
  // waits).
  template <typename Load>
  std::future<std::invoke_result_t<Load, Exec&>> Start(Load load) {
    if (beside_ == nullptr) {
      return std::async(std::launch::deferred, [this, load] { return load(exec_); });
    }
    return std::async(std::launch::async, [this, load] { return RunBeside(load); });
  }

 private:
  template <typename Load>
  std::invoke_result_t<Load, Exec&> RunBeside(const Load& load) {
    const std::lock_guard lock(mutex_);
    auto loaded = load(beside_->exec());
    beside_->stream().Synchronize();
    beside_->exec().workspace.Trim();  // what was planned is the scratch of one load, while it runs
    return loaded;
  }

  Exec& exec_;
  std::unique_ptr<OwnExec> beside_;  // null: not ahead
  std::mutex mutex_;                 // of what runs beside
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_BACKGROUND_LOADER_H_
