#include "tests/support/cuda_host/shared_shadow.h"

#include <algorithm>
#include <source_location>
#include <string>

#include "kernels/core/error.h"

namespace quantmill::cuda_host {
namespace {

constexpr std::byte kPattern{0xFF};  // NaN in every float type

}  // namespace

SharedShadow::SharedShadow(size_t bytes) : memory_(bytes) { warp_since_.fill(now_); }

void SharedShadow::NextBlock() {
  std::fill(memory_.begin(), memory_.end(), kPattern);
  used_ = taken_ = 0;
  BlockBarrier();  // accesses of the last block are ordered before all of this one
}

std::byte* SharedShadow::Take(int ordinal, size_t element_size, size_t count) {
  const auto at = static_cast<size_t>(ordinal);
  if (at == taken_) {
    if (at == arrays_.size()) arrays_.emplace_back();
    Array& array = arrays_[taken_++];
    array.offset = used_;
    array.element_size = element_size;
    array.elements.resize(count);
    used_ += (element_size * count + 15) / 16 * 16;
    Check(used_ <= memory_.size(), "cuda_host: more shared memory taken than the launch gave");
  }
  Check(at < taken_ && arrays_[at].element_size == element_size &&
            arrays_[at].elements.size() == count,
        "cuda_host: threads of a block take different shared arrays");
  return memory_.data() + arrays_[at].offset;
}

void SharedShadow::ReportRace(const char* what, int array, size_t index, int thread) {
  CheckFailed(std::string("cuda_host: race: ") + what + ", element " + std::to_string(index) +
                  " of shared array " + std::to_string(array) + " by thread " +
                  std::to_string(thread),
              std::source_location::current());
}

void SharedShadow::ReportOutside(size_t index, size_t count) {
  CheckFailed("cuda_host: access outside: " + std::to_string(static_cast<int64_t>(index)) +
                  " of a shared array of " + std::to_string(count),
              std::source_location::current());
}

}  // namespace quantmill::cuda_host
