#include "tests/support/cuda_host/shared_shadow.h"

#include <source_location>
#include <string>

#include "kernels/core/error.h"

namespace quantmill::cuda_host {
namespace {

constexpr std::byte kPattern{0xFF};  // NaN in every float type

}  // namespace

SharedShadow::SharedShadow(size_t bytes) : memory_(bytes, kPattern) { warp_since_.fill(now_); }

std::byte* SharedShadow::Take(int ordinal, size_t element_size, size_t count) {
  const auto at = static_cast<size_t>(ordinal);
  if (at == arrays_.size()) {
    arrays_.push_back({used_, element_size, std::vector<Element>(count)});
    used_ += (element_size * count + 15) / 16 * 16;
    Check(used_ <= memory_.size(), "cuda_host: more shared memory taken than the launch gave");
  }
  Check(at < arrays_.size() && arrays_[at].element_size == element_size &&
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
