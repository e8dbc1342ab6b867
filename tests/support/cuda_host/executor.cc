#include "tests/support/cuda_host/executor.h"

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace quantmill::cuda_host {

thread_local ThreadIndices indices;
thread_local SharedShadow* block_memory = nullptr;

namespace {

namespace context = boost::context;

constexpr int kLanes = 32;
constexpr size_t kLaneBytes = 64;

// Stacks of fibers, kept for the next block: mapping one costs more than most threads run.
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
struct StackBounds {
  const void* bottom = nullptr;
  size_t bytes = 0;
};
#ifdef __SANITIZE_ADDRESS__
void StartSwitch(void** fake, const StackBounds& to) {
  __sanitizer_start_switch_fiber(fake, to.bottom, to.bytes);
}
void FinishSwitch(void* fake, StackBounds* from) {
  if (from == nullptr) return __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
  __sanitizer_finish_switch_fiber(fake, &from->bottom, &from->bytes);
}
#else
void StartSwitch(void** /*fake*/, const StackBounds& /*to*/) {}
void FinishSwitch(void* /*fake*/, StackBounds* /*from*/) {}
#endif

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Thread {
  context::fiber fiber;
  StackBounds stack;
  State state = State::kReady;
};

struct Warp {
  int arrived = 0;
  int exchange = 0;  // which half of `lanes` the next exchange fills
  // Two halves: a lane may fill the next one while others still read the last.
  std::vector<std::byte> lanes = std::vector<std::byte>(2 * kLanes * kLaneBytes);
};

// One block at a time.
class BlockRun {
 public:
  BlockRun(int threads, size_t shared_bytes, const std::function<void()>& body)
      : body_(body),
        threads_(static_cast<size_t>(threads)),
        warps_((static_cast<size_t>(threads) + kLanes - 1) / kLanes),
        shared_(shared_bytes) {}

  void Run(bool descending) {
    for (size_t t = 0; t < threads_.size(); ++t) Start(t);
    size_t running = threads_.size();
    while (running > 0) {
      bool progress = false;
      for (size_t i = 0; i < threads_.size(); ++i) {
        const size_t t = descending ? threads_.size() - 1 - i : i;
        if (threads_[t].state != State::kReady) continue;
        Resume(t);
        progress = true;
        if (threads_[t].state == State::kDone) --running;
      }
      if (!progress && running > 0) ReleaseBlockBarrier();
    }
  }

  void SyncThreads() {
    threads_[now_].state = State::kAtBlockBarrier;
    Yield();
  }

  void SyncWarp() {
    const size_t warp = now_ / kLanes;
    if (++warps_[warp].arrived < Lanes(warp)) {
      threads_[now_].state = State::kAtWarpBarrier;
      return Yield();
    }
    warps_[warp].arrived = 0;
    shared_.WarpBarrier(static_cast<int>(warp));
    for (size_t t = warp * kLanes; t < warp * kLanes + static_cast<size_t>(Lanes(warp)); ++t) {
      if (t == now_) continue;
      Check(threads_[t].state == State::kAtWarpBarrier,
            "cuda_host: lanes of a warp wait at different barriers");
      threads_[t].state = State::kReady;
    }
    warps_[warp].exchange ^= 1;
  }

  const std::byte* Exchange(const void* mine, size_t size) {
    Check(size <= kLaneBytes, "cuda_host: too much for an exchange between lanes");
    Warp& warp = warps_[now_ / kLanes];
    std::byte* half = warp.lanes.data() + static_cast<size_t>(warp.exchange) * kLanes * kLaneBytes;
    std::memcpy(half + now_ % kLanes * kLaneBytes, mine, size);
    SyncWarp();
    return half;
  }

  int LanesHere() const { return Lanes(now_ / kLanes); }
  SharedShadow& shared() { return shared_; }

 private:
  int Lanes(size_t warp) const {
    return static_cast<int>(std::min<size_t>(kLanes, threads_.size() - warp * kLanes));
  }

  void Start(size_t t) {
    Thread& thread = threads_[t];
    const context::stack_context stack = stacks.Get();
    thread.stack = {static_cast<std::byte*>(stack.sp) - stack.size, stack.size};
    thread.fiber =
        context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                       PooledStacks(), [this, t](context::fiber&& main) {
                         FinishSwitch(nullptr, &main_stack_);
                         main_ = std::move(main);
                         body_();
                         threads_[t].state = State::kDone;
                         StartSwitch(nullptr, main_stack_);
                         return std::move(main_);
                       });
  }

  void Resume(size_t t) {
    now_ = t;
    indices.thread_index.x = static_cast<unsigned>(t);
    void* fake = nullptr;
    StartSwitch(&fake, threads_[t].stack);
    threads_[t].fiber = std::move(threads_[t].fiber).resume();
    FinishSwitch(fake, nullptr);
  }

  // Back to Run, until resumed.
  void Yield() {
    void* fake = nullptr;
    StartSwitch(&fake, main_stack_);
    main_ = std::move(main_).resume();
    FinishSwitch(fake, &main_stack_);
  }

  // Nobody can run: all must be waiting at the barrier of the block.
  void ReleaseBlockBarrier() {
    for (const Thread& thread : threads_) {
      Check(thread.state != State::kDone,
            "cuda_host: threads wait at a barrier for threads that have returned");
      Check(thread.state == State::kAtBlockBarrier,
            "cuda_host: threads of a block wait at different barriers");
    }
    shared_.BlockBarrier();
    for (Thread& thread : threads_) thread.state = State::kReady;
  }

  const std::function<void()>& body_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  SharedShadow shared_;
  context::fiber main_;
  StackBounds main_stack_;
  size_t now_ = 0;
};

thread_local BlockRun* running = nullptr;

}  // namespace

void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  Check(block.x >= 1 && block.x <= 1024 && block.y == 1 && block.z == 1,
        "cuda_host: blocks have one dimension, of 1 to 1,024 threads");
  Check(running == nullptr, "cuda_host: a kernel cannot launch another");
  indices.grid_size = grid;
  indices.block_size = block;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      indices.block_index = {x, y, 0};
      BlockRun run(static_cast<int>(block.x), shared_bytes, thread);
      running = &run;
      block_memory = &run.shared();
      run.Run((x + y) % 2 == 1);
      running = nullptr;
      block_memory = nullptr;
    }
  }
}

void SyncThreads() { running->SyncThreads(); }
void SyncWarp() { running->SyncWarp(); }
const std::byte* ExchangeInWarp(const void* mine, size_t size) {
  return running->Exchange(mine, size);
}
int LanesInWarp() { return running->LanesHere(); }

}  // namespace quantmill::cuda_host
