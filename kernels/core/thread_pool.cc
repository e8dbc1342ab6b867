#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"

namespace quantmill {

namespace {

// How long a waiting thread looks again before it sleeps: about as long as waking it would take.
// Matrix products of one decoded token follow each other faster than that.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ThreadPool::Impl {
  std::mutex mutex;
  std::condition_variable start;
  std::condition_variable finished;
  std::atomic<uint64_t> generation{0};  // counts calls; workers wait for the next one
  std::atomic<int> active{0};           // workers inside the current call
  bool open = false;                    // workers may still join the current call
  std::atomic<bool> stop{false};

  // The current call. Written under the mutex before it opens.
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

  // Waits for a call after `seen`; false: the pool is being destroyed.
  bool WaitForCall(uint64_t seen) {
    for (int i = 0; i < kSpins; ++i) {
      if (stop.load() || generation.load() != seen) break;
      Pause();
    }
    std::unique_lock lock(mutex);
    start.wait(lock, [&] { return stop.load() || generation.load() != seen; });
    return !stop.load();
  }

  void Work(int thread) {
    uint64_t seen = 0;
    while (WaitForCall(seen)) {
      {
        const std::lock_guard lock(mutex);
        seen = generation.load();
        if (!open) continue;  // woke too late: the call is over
        active.fetch_add(1);
      }
      Drain(thread);
      const std::lock_guard lock(mutex);
      if (active.fetch_sub(1) == 1) finished.notify_one();
    }
  }

  void Open(int64_t count, const std::function<void(int64_t, int)>& call) {
    const std::lock_guard lock(mutex);
    task = &call;
    tasks = count;
    next.store(0);
    error = nullptr;
    open = true;
    generation.fetch_add(1);
  }

  // No worker joins any more; waits for those that did.
  std::exception_ptr Close() {
    {
      const std::lock_guard lock(mutex);
      open = false;
    }
    for (int i = 0; i < kSpins && active.load() > 0; ++i) Pause();
    std::unique_lock lock(mutex);
    finished.wait(lock, [&] { return active.load() == 0; });
    return error;
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
    impl_->stop.store(true);
  }
  impl_->start.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::ParallelFor(int64_t tasks, const std::function<void(int64_t, int)>& task) {
  if (tasks <= 0) return;
  Check(!impl_->running.exchange(true), "ThreadPool: nested or concurrent ParallelFor");
  std::exception_ptr error;
  if (tasks == 1 || impl_->workers.empty()) {  // not worth waking anybody
    try {
      for (int64_t i = 0; i < tasks; ++i) task(i, 0);
    } catch (...) {
      error = std::current_exception();
    }
  } else {
    impl_->Open(tasks, task);
    impl_->start.notify_all();
    impl_->Drain(0);
    error = impl_->Close();
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
    const long limit = std::lround(std::stod(quota) / period);
    cpus = std::min(cpus, std::max(1, static_cast<int>(limit)));
  }
  return cpus;
}

}  // namespace quantmill
