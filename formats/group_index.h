// The group of each input, where act-order scattered the inputs of groups. Private to formats/.
#ifndef QUANTMILL_FORMATS_GROUP_INDEX_H_
#define QUANTMILL_FORMATS_GROUP_INDEX_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/module_tensors.h"

namespace quantmill {

// A module's tensor of one group for each input, as a file has it.
class GroupIndex {
 public:
  // The I32 tensor [in] named by `suffix`. Throws Error(kBadInput) if it is missing or of another
  // shape, or at the first input of no group in [0, groups).
  static GroupIndex Read(const ModuleTensors& tensors, std::string_view suffix, int64_t in,
                         int64_t groups);

  // The longest run that divides group_size such that all inputs of each run share a group:
  // group_size itself where groups are whole. REQUIRES: group_size > 0.
  int64_t RunLength(int64_t group_size) const;

  // Whether groups are runs of group_size inputs in order, as without act-order.
  bool IsInOrder(int64_t group_size) const;

  // Scales and zero points of `stored`, whose groups are the file's, as those of `linear`, whose
  // groups are runs: scheme, out and in of both are set. The values are the same.
  void Spread(const QuantizedLinear& stored, QuantizedLinear& linear) const;

 private:
  explicit GroupIndex(std::vector<int32_t> group_of) : group_of_(std::move(group_of)) {}

  std::vector<int32_t> group_of_;  // [in]
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GROUP_INDEX_H_
