#include "kernels/ops.h"

namespace quantmill {

const char* NameOf(Compute compute) {
  switch (compute) {
    case Compute::kF32:
      return "f32";
    case Compute::kBF16:
      return "bf16";
    case Compute::kBF16x3:
      return "bf16x3";
  }
  return "?";
}

KvFormat FormatOf(const KvShape& shape) {
  switch (shape.scheme.type) {
    case KvScheme::Type::kFp8:
      return KvFormat::kFp8;
    case KvScheme::Type::kInt8:
      return KvFormat::kInt8;
    case KvScheme::Type::kInt4:
      return KvFormat::kInt4;
    case KvScheme::Type::kNone:
      break;
  }
  return shape.dtype == DType::kF32 ? KvFormat::kF32 : KvFormat::kBF16;
}

std::optional<std::string> UnsupportedKv(KvScheme::Type type, int64_t head_dim) {
  if (type != KvScheme::Type::kInt4) return std::nullopt;
  constexpr int64_t kMostRotated = 1024;
  if (head_dim <= kMostRotated && (head_dim & (head_dim - 1)) == 0) return std::nullopt;
  return "int4 keys and values need heads of a power of two (at most 1024) for their Hadamard "
         "rotation; these have " +
         std::to_string(head_dim);
}

}  // namespace quantmill
