// Fibers of one operating system thread that switch directly to each other, announced to the
// address sanitizer.
#ifndef QUANTMILL_TESTS_SUPPORT_CUDA_HOST_FIBERS_H_
#define QUANTMILL_TESTS_SUPPORT_CUDA_HOST_FIBERS_H_

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <deque>
#include <functional>

namespace quantmill::cuda_host {

// Fiber 0 is the code that made this object, and destroys it once all others have ended. Used by
// one operating system thread.
class Fibers {
 public:
  static constexpr int kMain = 0;

  Fibers() : fibers_(1) {}

  // A new fiber, which calls `life` when first switched to, with a stack of 256 KiB; where `life`
  // returns, main goes on. `life` must outlive it.
  int Add(const std::function<void()>& life);

  // Leaves the running fiber for another one. Returns when any fiber switches back.
  void SwitchTo(int fiber);

  int running() const { return running_; }
  int count() const { return static_cast<int>(fibers_.size()); }  // main included

 private:
  // Its code, and what the sanitizer wants to know of its stack.
  struct Fiber {
    boost::context::fiber context;
    const void* stack = nullptr;
    size_t stack_bytes = 0;
  };

  std::deque<Fiber> fibers_;
  int running_ = kMain;
  int left_ = kMain;
};

}  // namespace quantmill::cuda_host

#endif  // QUANTMILL_TESTS_SUPPORT_CUDA_HOST_FIBERS_H_
