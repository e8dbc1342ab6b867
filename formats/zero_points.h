// Symmetric groups written with zero points, and back: the same values, exactly.
#ifndef QUANTMILL_FORMATS_ZERO_POINTS_H_
#define QUANTMILL_FORMATS_ZERO_POINTS_H_

#include "kernels/core/scheme.h"

namespace quantmill {

// A symmetric integer layer as an asymmetric one: zero points of 0, and -1 for groups of negative
// scale, whose codes q become -1 - q and whose scale changes sign: (-1 - q) - (-1) = -q.
void ToAsymmetric(QuantizedLinear& linear);

// Whether an asymmetric layer could have come from ToAsymmetric: zero points of 0 and -1 alone.
bool IsSymmetricInDisguise(const QuantizedLinear& linear);
// The inverse of ToAsymmetric. REQUIRES: IsSymmetricInDisguise.
void ToSymmetric(QuantizedLinear& linear);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_ZERO_POINTS_H_
