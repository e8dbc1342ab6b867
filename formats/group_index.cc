#include "formats/group_index.h"

#include <cstring>
#include <string>

#include "kernels/core/error.h"

namespace quantmill {

GroupIndex GroupIndex::Read(const ModuleTensors& tensors, std::string_view suffix, int64_t in,
                            int64_t groups) {
  std::vector<int32_t> group_of(static_cast<size_t>(in));
  std::memcpy(group_of.data(), tensors.Expect(suffix, "I32", {in}).data(),
              group_of.size() * sizeof(int32_t));
  for (size_t k = 0; k < group_of.size(); ++k) {
    if (group_of[k] < 0 || group_of[k] >= groups) {
      tensors.Fail(suffix, "input " + std::to_string(k) + " is of group " +
                               std::to_string(group_of[k]) + " of " + std::to_string(groups));
    }
  }
  return GroupIndex(std::move(group_of));
}

int64_t GroupIndex::RunLength(int64_t group_size) const {
  const auto is_shared = [&](int64_t run) {
    for (size_t k = 0; k < group_of_.size(); ++k) {
      const size_t first = k - k % static_cast<size_t>(run);
      if (group_of_[k] != group_of_[first]) return false;
    }
    return true;
  };
  int64_t run = group_size;
  while (run > 1 && (group_size % run != 0 || !is_shared(run))) --run;
  return run;
}

bool GroupIndex::IsInOrder(int64_t group_size) const {
  for (size_t k = 0; k < group_of_.size(); ++k) {
    if (group_of_[k] != static_cast<int64_t>(k) / group_size) return false;
  }
  return true;
}

void GroupIndex::Spread(const QuantizedLinear& stored, QuantizedLinear& linear) const {
  const int64_t run = linear.scheme.GroupSizeFor(linear.in);
  if (run == stored.scheme.GroupSizeFor(stored.in) && IsInOrder(run)) {
    linear.scales = stored.scales;
    linear.zero_points = stored.zero_points;
    return;
  }
  linear.scales.clear();
  linear.zero_points.clear();
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t g = 0; g < linear.groups(); ++g) {
      const int64_t from = group_of_[static_cast<size_t>(g * run)];
      const auto at = static_cast<size_t>(o * stored.groups() + from);
      linear.scales.push_back(stored.scales[at]);
      if (!linear.scheme.symmetric) linear.zero_points.push_back(stored.zero_points[at]);
    }
  }
}

}  // namespace quantmill
