#include "kernels/core/permutation.h"

#include <vector>

#include "kernels/core/error.h"

namespace quantmill {

void CheckPermutation(std::span<const int32_t> order, int64_t n) {
  Check(static_cast<int64_t>(order.size()) == n, "an order of columns has another length");
  std::vector<bool> seen(order.size(), false);
  for (const int32_t i : order) {
    Check(i >= 0 && i < n && !seen[static_cast<size_t>(i)], "an order of columns repeats one");
    seen[static_cast<size_t>(i)] = true;
  }
}

}  // namespace quantmill
