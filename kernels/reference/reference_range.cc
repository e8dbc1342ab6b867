// AddRange of the reference backend.
#include <cmath>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace quantmill::reference {

void ReferenceBackend::AddRange(Exec&, ConstMatrix x, Matrix range) {
  CheckAddRange(x, range);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t i = 0; i < x.cols; ++i) {
      float& low = range.Row<float>(0)[i];
      float& high = range.Row<float>(1)[i];
      const float value = x.dtype == DType::kBF16 ? ToFloat(x.Row<BF16>(t)[i]) : x.Row<float>(t)[i];
      if (value < low || std::isnan(value)) low = value;
      if (value > high || std::isnan(value)) high = value;
    }
  }
}

}  // namespace quantmill::reference
