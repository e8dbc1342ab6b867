#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"

namespace quantmill {

struct ThreadPool::Impl {
  std::mutex mutex;
  std::condition_variable start;
  std::condition_variable finished;
  uint64_t generation = 0;  // counts ParallelFor calls; workers wait for the next one
  int busy = 0;             // workers still in the current call
  bool stop = false;

  // The current call. Written under the mutex before the workers start.
  const std::function<void(int64_t, int)>* task = nullptr;
  int64_t tasks = 0;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::atomic<bool> running{false};

  std::vector<std::thread> workers;

  void Drain(int thread) {
    try {
      for (int64_t i = next.fetch_add(1); i < tasks; i = next.fetch_add(1)) (*task)(i, thread);
    } catch (...) {
      next.store(tasks);
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  }

  void Work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex);
        start.wait(lock, [&] { return stop || generation != seen; });
        if (stop) return;
        seen = generation;
      }
      Drain(thread);
      const std::lock_guard lock(mutex);
      if (--busy == 0) finished.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  Check(threads >= 1, "ThreadPool: needs at least one thread");
  for (int i = 1; i < threads; ++i) {
    impl_->workers.emplace_back([impl = impl_.get(), i] { impl->Work(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->start.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::ParallelFor(int64_t tasks, const std::function<void(int64_t, int)>& task) {
  if (tasks <= 0) return;
  Check(!impl_->running.exchange(true), "ThreadPool: nested or concurrent ParallelFor");
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->task = &task;
    impl_->tasks = tasks;
    impl_->next.store(0);
    impl_->error = nullptr;
    impl_->busy = tasks > 1 ? static_cast<int>(impl_->workers.size()) : 0;
    if (impl_->busy > 0) ++impl_->generation;
  }
  if (tasks > 1) impl_->start.notify_all();
  impl_->Drain(0);
  std::exception_ptr error;
  {
    std::unique_lock lock(impl_->mutex);
    impl_->finished.wait(lock, [&] { return impl_->busy == 0; });
    error = impl_->error;
  }
  impl_->running.store(false);
  if (error) std::rethrow_exception(error);
}

int AvailableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = std::max(1, CPU_COUNT(&set));
  // cgroup v2: "<quota> <period>" in microseconds, or "max <period>".
  std::ifstream cpu_max("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (cpu_max >> quota >> period && quota != "max" && period > 0) {
    const int limit = static_cast<int>(std::stod(quota) / period + 0.5);
    cpus = std::min(cpus, std::max(1, limit));
  }
  return cpus;
}

}  // namespace quantmill
