#include "formats/tokenizer/post_processor.h"

namespace quantmill {

std::vector<int32_t> PostProcessor::Apply(std::vector<int32_t> ids, bool add_special_tokens) const {
  if (AddsNothing()) return ids;
  std::vector<int32_t> out;
  out.reserve(ids.size() + items_.size());
  for (const int32_t item : items_) {
    if (item == kText) {
      out.insert(out.end(), ids.begin(), ids.end());
    } else if (add_special_tokens) {
      out.push_back(item);
    }
  }
  return out;
}

}  // namespace quantmill
