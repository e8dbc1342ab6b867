// A fixed set of threads that run numbered, independent tasks.
#ifndef QUANTMILL_KERNELS_CORE_THREAD_POOL_H_
#define QUANTMILL_KERNELS_CORE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace quantmill {

// Results must not depend on the number of threads: callers cut work into tasks by shape alone,
// each task writes memory of its own, and sums over tasks are taken by the caller in task order.
// Which thread runs a task is not fixed.
class ThreadPool {
 public:
  // threads >= 1; the calling thread is one of them.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Runs task(index, thread) for each index in [0, tasks), thread in [0, threads()), and waits.
  // The first exception thrown by a task is rethrown here, after all running tasks ended; tasks not
  // begun by then are dropped. A task must not call ParallelFor on the same pool (Check).
  void ParallelFor(int64_t tasks, const std::function<void(int64_t index, int thread)>& task);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The CPUs this process may run on (affinity and cgroup quota respected), at least 1.
int AvailableCpus();

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_THREAD_POOL_H_
