// kernels/cuda/ptx.h for the C++ compiler: what each lane holds, lane by lane, and copies that
// arrive as late as they may. Included by that header alone, which has the contracts.
#ifndef QUANTMILL_TESTS_SUPPORT_CUDA_HOST_PTX_EMULATION_H_
#define QUANTMILL_TESTS_SUPPORT_CUDA_HOST_PTX_EMULATION_H_

#include <cmath>
#include <cstring>
#include <vector>

#include "tests/support/cuda_host/emulation.h"

namespace quantmill::QUANTMILL_CUDA {

// What lane `lane` handed over in an exchange.
template <typename T>
T OfLane(const std::byte* all, int lane) {
  T value;
  std::memcpy(&value, all + lane * 64, sizeof(T));
  return value;
}

inline void LoadMatrices(const SharedArray<Octet>& row, uint32_t (&to)[4]) {
  const Octet mine = row[0];
  const std::byte* all = cuda_host::ExchangeInWarp(&mine, sizeof(mine));
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int m = 0; m < 4; ++m) to[m] = OfLane<Octet>(all, 8 * m + lane / 4).pairs[lane % 4];
}

inline void LoadTransposed(const SharedArray<Octet>& row, uint32_t (&to)[4]) {
  const Octet mine = row[0];
  const std::byte* all = cuda_host::ExchangeInWarp(&mine, sizeof(mine));
  const int lane = static_cast<int>(threadIdx.x % 32);
  const auto element = [&](int of_row) {
    return OfLane<Octet>(all, of_row).pairs[lane / 8] >> (lane / 4 % 2 * 16) & 0xFFFFu;
  };
  for (int m = 0; m < 4; ++m) {
    const int first = 8 * m + 2 * (lane % 4);
    to[m] = element(first) | element(first + 1) << 16;
  }
}

// Sums in order, each rounded to F32.
inline void MultiplyAddBF16(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) {
  struct Operands {
    uint32_t a[4];
    uint32_t b[2];
  };
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const std::byte* all = cuda_host::ExchangeInWarp(&mine, sizeof(mine));
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int k = 0; k < 16; k += 2) {
    const int in_group = k % 8 / 2;  // the lane of four that holds columns k and k + 1 of A
    const auto of_row = OfLane<Operands>(all, lane / 4 * 4 + in_group);
    for (int i = 0; i < 4; ++i) {
      const int column = 2 * (lane % 4) + i % 2;
      const uint32_t left = of_row.a[2 * (k / 8) + i / 2];
      const uint32_t right = OfLane<Operands>(all, column * 4 + in_group).b[k / 8];
      c[i] += LowBF16(left) * LowBF16(right);
      c[i] += HighBF16(left) * HighBF16(right);
    }
  }
}

inline uint32_t PairBF16(float low, float high) {
  return uint32_t{ToBF16(low).bits} | uint32_t{ToBF16(high).bits} << 16;
}

inline float Exp2(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}

inline float Reciprocal(float x) {
  const float y = 1.0f / x;
  return std::fabs(y) < 0x1p-126f ? 0.0f : y;
}

inline int Recomputed(int x) { return x; }

// A copy arrives when it is waited for and not before: its place holds NaN meanwhile. To the race
// check it is written by its thread when the copy starts and again when it arrives.
class AsyncCopies {
 public:
  AsyncCopies() = default;
  ~AsyncCopies() { Check(pending_.empty(), "cuda_host: a thread ends before its copies arrived"); }
  AsyncCopies(const AsyncCopies&) = delete;
  AsyncCopies& operator=(const AsyncCopies&) = delete;

  void Copy(const SharedArray<Octet>& to, const Octet* from, bool exists) {
    Octet nothing;
    std::memset(&nothing, 0xFF, sizeof(nothing));
    to[0] = nothing;
    Check(reinterpret_cast<uintptr_t>(from) % sizeof(Octet) == 0,
          "cuda_host: an asynchronous copy from an address that is not aligned");
    pending_.push_back({to, exists ? from : nullptr, groups_});
  }
  void Commit() { ++groups_; }
  template <int kNewest>
  void Wait() {
    size_t arrived = 0;
    for (; arrived < pending_.size() && pending_[arrived].group + kNewest < groups_; ++arrived) {
      const Pending& copy = pending_[arrived];
      copy.to[0] = copy.from != nullptr ? *copy.from : Octet{};
    }
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(arrived));
  }

 private:
  struct Pending {
    SharedArray<Octet> to;
    const Octet* from;  // null: zeros
    int group;
  };

  std::vector<Pending> pending_;
  int groups_ = 0;  // closed
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_TESTS_SUPPORT_CUDA_HOST_PTX_EMULATION_H_
