// Tensors of a GGUF model as a checkpoint has them: other names, another order of rows, decoded.
#ifndef QUANTMILL_FORMATS_GGUF_DECODED_TENSORS_H_
#define QUANTMILL_FORMATS_GGUF_DECODED_TENSORS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/gguf/model_files.h"
#include "formats/tensor_source.h"
#include "kernels/core/dtype.h"

namespace quantmill {

// One tensor of the checkpoint.
struct GgufDecoded {
  std::string name;  // in the checkpoint
  GgufPlace place;   // with a codec (codec.h)
  DType dtype = DType::kF16;
  std::vector<int64_t> shape;  // of one or two dimensions, none of them 0
  // Row r is row rows[r] of the file's; of one dimension: element r. Empty: as in the file.
  std::vector<int64_t> rows;
  // The file's rows are those of its tensor from here on: several matrices may be stacked in one.
  int64_t first_row = 0;
  bool transposed =
      false;        // shape is [cols, rows] of the file's; rows and first_row are the file's
  float added = 0;  // to every element, in the file
};

class GgufTensors : public TensorSource {
 public:
  GgufTensors(GgufModelFiles files, std::vector<GgufDecoded> tensors);

  const GgufModelFiles& files() const { return files_; }
  const GgufDecoded& decoded(size_t index) const { return decoded_[index]; }
  // The bytes of one row (of the checkpoint's order; of a transposed tensor: one of its columns) as
  // the file holds it.
  std::span<const std::byte> StoredRow(size_t index, int64_t row) const;

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  StoredTensor Stored(size_t index) const override;
  std::string Location(size_t index) const override;
  void ReadRows(size_t index, int64_t row, int64_t count, std::span<std::byte> to) const override;
  void Release(size_t index) const override;

 private:
  // The bytes of a checkpoint's tensor within the file's.
  struct Extent {
    uint64_t begin = 0;
    uint64_t bytes = 0;
  };
  Extent ExtentOf(size_t index) const;
  void ReadRow(size_t index, int64_t row, std::span<float> values) const;
  // Rows of a transposed tensor: [count, cols] F32.
  std::vector<float> ReadColumns(size_t index, int64_t row, int64_t count) const;
  [[noreturn]] void FailAt(size_t index, int64_t row, int64_t col, float value) const;

  GgufModelFiles files_;
  std::vector<GgufDecoded> decoded_;
  std::vector<TensorInfo> infos_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_DECODED_TENSORS_H_
