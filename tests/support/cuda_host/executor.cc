#include "tests/support/cuda_host/executor.h"

#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "kernels/core/error.h"
#include "tests/support/cuda_host/fibers.h"

namespace quantmill::cuda_host {

thread_local ThreadIndices indices;
thread_local SharedShadow* block_memory = nullptr;

namespace {

constexpr int kLanes = 32;
constexpr size_t kLaneBytes = 64;

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Thread {
  State state = State::kReady;
  int fiber = 0;  // that it waits in
};

struct Warp {
  int arrived = 0;
  int exchange = 0;  // which half of `lanes` the next exchange fills
  // Two halves: a lane may fill the next one while others still read the last.
  std::array<std::byte, 2 * kLanes * kLaneBytes> lanes;
};

// The blocks of a launch, one after another. A thread that waits leaves its fiber to the next one
// that can run; a fiber whose thread has returned goes on with one that has not begun. So there are
// as many fibers as threads that wait at once.
class GridRun {
 public:
  GridRun(int threads, size_t shared_bytes, const std::function<void()>& body)
      : body_(body),
        threads_(static_cast<size_t>(threads)),
        warps_((static_cast<size_t>(threads) + kLanes - 1) / kLanes),
        shared_(shared_bytes) {}
  GridRun(const GridRun&) = delete;
  GridRun& operator=(const GridRun&) = delete;
  ~GridRun() {
    closing_ = true;
    for (int fiber = 1; fiber < fibers_.count(); ++fiber) fibers_.SwitchTo(fiber);
  }

  void RunBlock(bool descending) {
    descending_ = descending;
    begun_ = done_ = 0;
    shared_.NextBlock();
    fibers_.SwitchTo(IdleFiber());
  }

  void SyncThreads() { Wait(State::kAtBlockBarrier); }

  void SyncWarp() {
    const size_t warp = now_ / kLanes;
    if (++warps_[warp].arrived < Lanes(warp)) return Wait(State::kAtWarpBarrier);
    warps_[warp].arrived = 0;
    warps_[warp].exchange ^= 1;
    shared_.WarpBarrier(static_cast<int>(warp));
    for (size_t t = warp * kLanes; t < warp * kLanes + static_cast<size_t>(Lanes(warp)); ++t) {
      if (t == now_) continue;
      Check(threads_[t].state == State::kAtWarpBarrier,
            "cuda_host: lanes of a warp wait at different barriers");
      MakeReady(t);
    }
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
  // The i-th thread in this block's order.
  size_t InOrder(size_t i) const { return descending_ ? threads_.size() - 1 - i : i; }

  void Enter(size_t t) {
    now_ = t;
    indices.thread_index.x = static_cast<unsigned>(t);
  }

  // What each fiber does.
  void Live() {
    while (!closing_) {
      while (begun_ < threads_.size()) {
        const size_t t = InOrder(begun_++);
        threads_[t].state = State::kReady;
        Enter(t);
        body_();
        threads_[now_].state = State::kDone;
        ++done_;
      }
      idle_.push_back(fibers_.running());
      fibers_.SwitchTo(NextFiber());
    }
  }

  void Wait(State at) {
    const size_t t = now_;
    threads_[t] = {at, fibers_.running()};
    const int next = NextFiber();
    if (next != fibers_.running()) fibers_.SwitchTo(next);
    Enter(t);
  }

  // Where the block goes on when the running thread cannot: main, where all have returned.
  int NextFiber() {
    if (ready_.empty()) {
      if (begun_ < threads_.size()) return IdleFiber();
      if (done_ == threads_.size()) return Fibers::kMain;
      ReleaseBlockBarrier();
    }
    const size_t t = ready_.front();
    ready_.pop_front();
    return threads_[t].fiber;
  }

  int IdleFiber() {
    if (idle_.empty()) return fibers_.Add(life_);
    const int fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }

  void MakeReady(size_t t) {
    threads_[t].state = State::kReady;
    ready_.push_back(t);
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
    for (size_t i = 0; i < threads_.size(); ++i) MakeReady(InOrder(i));
  }

  const std::function<void()>& body_;
  const std::function<void()> life_ = [this] { Live(); };
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  SharedShadow shared_;
  Fibers fibers_;
  std::vector<int> idle_;     // fibers without a thread
  std::deque<size_t> ready_;  // threads that waited and can go on
  bool descending_ = false;
  bool closing_ = false;
  size_t begun_ = 0;  // threads of this block
  size_t done_ = 0;
  size_t now_ = 0;
};

thread_local GridRun* running = nullptr;

}  // namespace

void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  Check(block.x >= 1 && block.x <= 1024 && block.y == 1 && block.z == 1,
        "cuda_host: blocks have one dimension, of 1 to 1,024 threads");
  Check(running == nullptr, "cuda_host: a kernel cannot launch another");
  indices.grid_size = grid;
  indices.block_size = block;
  GridRun run(static_cast<int>(block.x), shared_bytes, thread);
  running = &run;
  block_memory = &run.shared();
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      indices.block_index = {x, y, 0};
      run.RunBlock((x + y) % 2 == 1);
    }
  }
  running = nullptr;
  block_memory = nullptr;
}

void SyncThreads() { running->SyncThreads(); }
void SyncWarp() { running->SyncWarp(); }
const std::byte* ExchangeInWarp(const void* mine, size_t size) {
  return running->Exchange(mine, size);
}
int LanesInWarp() { return running->LanesHere(); }

}  // namespace quantmill::cuda_host
