// Tensors that are computed when they are asked for, as a file of another kind holds them.
#ifndef QUANTMILL_FORMATS_TENSOR_SOURCE_H_
#define QUANTMILL_FORMATS_TENSOR_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/safetensors.h"

namespace quantmill {

// How a file holds a tensor: the type by its name there, and the bytes that it takes.
struct StoredTensor {
  std::string type;
  uint64_t bytes = 0;
};

// `index`: into tensors(). Const methods may be called from any thread.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Names differ. begin is 0, end the number of bytes. dtype is F32, F16 or BF16.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  virtual StoredTensor Stored(size_t index) const = 0;
  // "file: tensor 'x' (byte offset N)", for Error::where.
  virtual std::string Location(size_t index) const = 0;
  // Rows [row, row + count) one after another. `to`: exactly their bytes. Throws Error(kBadInput)
  // at a value that is not finite, or that the tensor's dtype does not reach.
  virtual void ReadRows(size_t index, int64_t row, int64_t count,
                        std::span<std::byte> to) const = 0;
  // Gives the pages of the file back to the system.
  virtual void Release(size_t index) const = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TENSOR_SOURCE_H_
