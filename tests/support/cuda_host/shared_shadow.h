// The shared memory of one block, and who touched which element of it since when: the race check of
// the host executor.
#ifndef QUANTMILL_TESTS_SUPPORT_CUDA_HOST_SHARED_SHADOW_H_
#define QUANTMILL_TESTS_SUPPORT_CUDA_HOST_SHARED_SHADOW_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace quantmill::cuda_host {

// Two accesses to an element by different threads race, one of them writing, unless a barrier of
// the block lies between them, or one of the warp where both are lanes of it. A race is a Check.
//
// Barriers count the time: an access is ordered before all that follow the next barrier of the
// block, and before those of its own warp that follow the next barrier of that.
class SharedShadow {
 public:
  explicit SharedShadow(size_t bytes);

  // Forgets the arrays of the last block. Once before each block.
  void NextBlock();

  // Memory of the block's `ordinal`-th array, uninitialized (filled with a pattern). Past `bytes`,
  // or of other sizes than another thread asked for: Check.
  std::byte* Take(int ordinal, size_t element_size, size_t count);

  void BlockBarrier() {
    block_since_ = ++now_;
    warp_since_.fill(now_);
  }
  void WarpBarrier(int warp) { warp_since_[static_cast<size_t>(warp)] = ++now_; }

  // Accesses of a thread of the block.
  void Read(int array, size_t index, int thread) {
    Element& element = At(array, index);
    if (element.write_time >= block_since_ && Races(element.write_time, element.writer, thread)) {
      ReportRace("read after an unordered write", array, index, thread);
    }
    if (element.read_time < block_since_) {
      element.other_lanes = element.other_warps = false;
    } else if (element.reader != thread) {
      const bool same_warp = element.reader / kLanes == thread / kLanes;
      element.other_warps |= !same_warp;
      element.other_lanes = same_warp && element.read_time >= SinceOf(thread);
    }
    element.read_time = now_;
    element.reader = static_cast<int16_t>(thread);
  }
  void Write(int array, size_t index, int thread) {
    Element& element = At(array, index);
    if (element.write_time >= block_since_ && Races(element.write_time, element.writer, thread)) {
      ReportRace("unordered writes", array, index, thread);
    }
    const bool read_by_others =
        element.other_warps || (element.other_lanes && element.read_time >= SinceOf(thread));
    if (element.read_time >= block_since_ &&
        (read_by_others || Races(element.read_time, element.reader, thread))) {
      ReportRace("write after an unordered read", array, index, thread);
    }
    element.write_time = now_;
    element.writer = static_cast<int16_t>(thread);
  }

 private:
  static constexpr int kLanes = 32;
  static constexpr int kMostWarps = 32;

  // The last accesses; time 0: none.
  struct Element {
    uint32_t write_time = 0;
    uint32_t read_time = 0;
    int16_t writer = 0;
    int16_t reader = 0;
    bool other_lanes = false;  // other lanes of the reader's warp have read since its last barrier
    bool other_warps = false;  // other warps have read since the block's last barrier
  };
  struct Array {
    size_t offset = 0;
    size_t element_size = 0;
    std::vector<Element> elements;
  };

  Element& At(int array, size_t index) {
    std::vector<Element>& elements = arrays_[static_cast<size_t>(array)].elements;
    if (index >= elements.size()) [[unlikely]]
      ReportOutside(index, elements.size());
    return elements[index];
  }
  uint32_t SinceOf(int thread) const { return warp_since_[static_cast<size_t>(thread / kLanes)]; }
  // Of an access since the block's last barrier.
  bool Races(uint32_t time, int by, int thread) const {
    if (by == thread) return false;
    return by / kLanes != thread / kLanes || time >= SinceOf(thread);
  }
  [[noreturn]] static void ReportRace(const char* what, int array, size_t index, int thread);
  [[noreturn]] static void ReportOutside(size_t index, size_t count);

  std::vector<std::byte> memory_;
  size_t used_ = 0;
  size_t taken_ = 0;           // arrays of this block
  std::vector<Array> arrays_;  // those past `taken_` keep their memory for the next block
  uint32_t now_ = 1;
  uint32_t block_since_ = 1;
  std::array<uint32_t, kMostWarps> warp_since_{};
};

}  // namespace quantmill::cuda_host

#endif  // QUANTMILL_TESTS_SUPPORT_CUDA_HOST_SHARED_SHADOW_H_
