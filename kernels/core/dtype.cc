#include "kernels/core/dtype.h"

#include "kernels/core/error.h"

namespace quantmill {

std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "F64";
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kF8E4M3:
      return "F8_E4M3";
    case DType::kF8E8M0:
      return "F8_E8M0";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kI16:
      return "I16";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kBool:
      return "BOOL";
  }
  return "?";
}

float RoundTo(DType dtype, float x) {
  Check(IsDenseFloat(dtype) || dtype == DType::kF8E4M3 || dtype == DType::kF8E8M0,
        "RoundTo: not a float type");
  return RoundedTo(dtype, x);
}

}  // namespace quantmill
