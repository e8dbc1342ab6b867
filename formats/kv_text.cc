#include "formats/kv_text.h"

namespace quantmill {

std::string KvText(const KvScheme& kv) {
  if (kv.type == KvScheme::Type::kNone) return "none";
  return kv.per_head ? "fp8-head" : "fp8";
}

}  // namespace quantmill
