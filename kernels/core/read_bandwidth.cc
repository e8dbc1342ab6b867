#include "kernels/core/read_bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kTask = int64_t{4} << 20;

}  // namespace

double ReadBandwidth(ThreadPool& pool, int64_t bytes, int rounds) {
  Check(bytes >= 1 && rounds >= 1, "ReadBandwidth: nothing to read");
  const std::vector<uint8_t> block(static_cast<size_t>(bytes), 1);
  // A line of its own for each thread, so that none waits for another's store.
  std::vector<uint64_t> sums(static_cast<size_t>(pool.threads() * kLine) / sizeof(uint64_t));
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    pool.ParallelFor((bytes + kTask - 1) / kTask, [&](int64_t task, int thread) {
      const int64_t end = std::min(bytes, (task + 1) * kTask);
      uint64_t sum = 0;
      for (int64_t i = task * kTask; i + static_cast<int64_t>(sizeof(sum)) <= end; i += kLine) {
        uint64_t word;
        std::memcpy(&word, block.data() + i, sizeof(word));
        sum += word;
      }
      sums[static_cast<size_t>(thread) * (kLine / sizeof(uint64_t))] += sum;
    });
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(bytes) / passed.count());
  }
  // Otherwise the reading could be left out.
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  Check(total > 0 || bytes < static_cast<int64_t>(sizeof(uint64_t)), "ReadBandwidth: read nothing");
  return best;
}

}  // namespace quantmill
