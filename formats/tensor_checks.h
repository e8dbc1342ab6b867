// Checks that every artifact format makes on single tensors. Private to formats/.
#ifndef QUANTMILL_FORMATS_TENSOR_CHECKS_H_
#define QUANTMILL_FORMATS_TENSOR_CHECKS_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/artifact.h"

namespace quantmill {

// Whether all elements are equal. False for fewer than two.
bool IsConstant(std::span<const std::byte> bytes, size_t element_bytes);

// Appends the defects of a tensor that no format packs: NaN or infinity; for two or more
// dimensions, all elements equal (norms and biases may be).
void CheckDenseTensor(const Checkpoint& checkpoint, const std::string& name,
                      std::vector<TensorProblem>& problems);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TENSOR_CHECKS_H_
