// AddRange's kernel; compiled once per instruction set (isa.h).
#include "kernels/cpu/range_kernels.h"
#include "kernels/cpu/simd.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

constexpr int kVectors = static_cast<int>(kRangeCols / kLanes);

// A NaN once seen stays: nothing is less or greater than it, and it is taken over.
Vec Lower(Vec low, Vec x) { return (IsNaN(x) | (x < low)) ? x : low; }
Vec Higher(Vec high, Vec x) { return (IsNaN(x) | (x > high)) ? x : high; }

template <typename Element>
Vec LoadElements(const Element* p) {
  if constexpr (sizeof(Element) == 2) {
    return LoadBF16(p);
  } else {
    return Load(p);
  }
}

template <typename Element>
void AddWhole(const RangeArgs& a) {
  Vec low[kVectors];
  Vec high[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    low[v] = Load(a.low + v * kLanes);
    high[v] = Load(a.high + v * kLanes);
  }
  const Element* row = static_cast<const Element*>(a.x);
  for (int64_t t = 0; t < a.tokens; ++t, row += a.x_row) {
    for (int v = 0; v < kVectors; ++v) {
      const Vec x = LoadElements(row + v * kLanes);
      low[v] = Lower(low[v], x);
      high[v] = Higher(high[v], x);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    Store(a.low + v * kLanes, low[v]);
    Store(a.high + v * kLanes, high[v]);
  }
}

// Fewer columns: one token after another through padded copies.
template <typename Element>
void AddPart(const RangeArgs& a) {
  const auto bytes = static_cast<size_t>(a.cols) * sizeof(float);
  float low[kRangeCols] = {};
  float high[kRangeCols] = {};
  std::memcpy(low, a.low, bytes);
  std::memcpy(high, a.high, bytes);
  Element row[kRangeCols] = {};
  for (int64_t t = 0; t < a.tokens; ++t) {
    std::memcpy(row, static_cast<const Element*>(a.x) + t * a.x_row,
                static_cast<size_t>(a.cols) * sizeof(Element));
    RangeArgs one = a;
    one.x = row;
    one.tokens = 1;
    one.low = low;
    one.high = high;
    AddWhole<Element>(one);
  }
  std::memcpy(a.low, low, bytes);
  std::memcpy(a.high, high, bytes);
}

template <typename Element>
void AddOf(const RangeArgs& a) {
  if (a.cols == kRangeCols) return AddWhole<Element>(a);
  AddPart<Element>(a);
}

void Add(const RangeArgs& a) { a.bf16 ? AddOf<uint16_t>(a) : AddOf<float>(a); }

}  // namespace

extern const RangeKernels kRangeKernels;
const RangeKernels kRangeKernels = {.add = Add};

}  // namespace quantmill::cpu::QUANTMILL_ISA
