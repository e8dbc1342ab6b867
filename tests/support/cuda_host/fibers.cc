#include "tests/support/cuda_host/fibers.h"

#include <boost/context/protected_fixedsize_stack.hpp>
#include <utility>
#include <vector>

#ifdef QUANTMILL_ANNOUNCE_FIBERS
#include <sanitizer/common_interface_defs.h>
#endif

namespace quantmill::cuda_host {
namespace {

namespace context = boost::context;

// Stacks, kept for the next launch: mapping one costs more than most kernels run.
class StackPool {
 public:
  static constexpr size_t kBytes = size_t{256} << 10;

  ~StackPool() {
    for (context::stack_context& stack : free_) allocator_.deallocate(stack);
  }
  context::stack_context Get() {
    if (free_.empty()) return allocator_.allocate();
    const context::stack_context stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void Put(const context::stack_context& stack) { free_.push_back(stack); }

 private:
  context::protected_fixedsize_stack allocator_{kBytes};
  std::vector<context::stack_context> free_;
};

thread_local StackPool stacks;

// What boost::context::fiber takes: stacks from the pool of this thread.
struct PooledStacks {
  context::stack_context allocate() { return stacks.Get(); }
  void deallocate(context::stack_context& stack) { stacks.Put(stack); }
};

// The address sanitizer has to be told which stack runs. `fake` keeps its state of the stack that
// is left; null when that one ends.
#ifdef QUANTMILL_ANNOUNCE_FIBERS
void StartSwitch(void** fake, const void* stack, size_t bytes) {
  __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void FinishSwitch(void* fake, const void** left_stack, size_t* left_bytes) {
  __sanitizer_finish_switch_fiber(fake, left_stack, left_bytes);
}
#else
void StartSwitch(void** /*fake*/, const void* /*stack*/, size_t /*bytes*/) {}
void FinishSwitch(void* /*fake*/, const void** /*left_stack*/, size_t* /*left_bytes*/) {}
#endif

}  // namespace

int Fibers::Add(const std::function<void()>& life) {
  const context::stack_context stack = stacks.Get();
  Fiber& added = fibers_.emplace_back();
  added.stack = static_cast<std::byte*>(stack.sp) - stack.size;
  added.stack_bytes = stack.size;
  added.context =
      context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                     PooledStacks(), [this, &life](context::fiber&& left) {
                       Fiber& from = fibers_[static_cast<size_t>(left_)];
                       FinishSwitch(nullptr, &from.stack, &from.stack_bytes);
                       from.context = std::move(left);
                       life();
                       Fiber& main = fibers_[kMain];
                       left_ = std::exchange(running_, kMain);
                       StartSwitch(nullptr, main.stack, main.stack_bytes);
                       return std::move(main.context);
                     });
  return count() - 1;
}

void Fibers::SwitchTo(int fiber) {
  Fiber& to = fibers_[static_cast<size_t>(fiber)];
  left_ = std::exchange(running_, fiber);
  void* fake = nullptr;
  StartSwitch(&fake, to.stack, to.stack_bytes);
  context::fiber left = std::move(to.context).resume();
  Fiber& from = fibers_[static_cast<size_t>(left_)];
  FinishSwitch(fake, &from.stack, &from.stack_bytes);
  from.context = std::move(left);
}

}  // namespace quantmill::cuda_host
