// The tensors of one quantized module. Private to formats/.
#ifndef QUANTMILL_FORMATS_MODULE_TENSORS_H_
#define QUANTMILL_FORMATS_MODULE_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/packed_rows.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// The tensors of one module in a checkpoint, which must outlive it. Errors name the tensor.
class ModuleTensors {
 public:
  ModuleTensors(const Checkpoint& checkpoint, std::string module)
      : checkpoint_(checkpoint), module_(std::move(module)) {}

  std::string Name(std::string_view suffix) const { return module_ + std::string(suffix); }
  bool Has(std::string_view suffix) const { return checkpoint_.Has(Name(suffix)); }
  // Throws if the tensor is missing.
  const TensorInfo& Info(std::string_view suffix) const;
  // Its bytes. Throws if it is missing, or of another type or shape.
  std::span<const std::byte> Expect(std::string_view suffix, std::string_view dtype,
                                    const std::vector<int64_t>& shape) const;
  // The sizes of a tensor of two dimensions and this type; at most 2^28 each, so that products of
  // sizes stay inside 64 bits.
  std::pair<int64_t, int64_t> ExpectMatrix(std::string_view suffix, std::string_view dtype) const;
  [[noreturn]] void Fail(std::string_view suffix, const std::string& what) const;

 private:
  const Checkpoint& checkpoint_;
  std::string module_;
};

// A tensor of one float (shape [1] or none), finite and above zero, as F32, F16 or BF16.
float ReadPositive(const ModuleTensors& tensors, std::string_view suffix);
// Makes `rows` those of `module`, without their arrays: a reader fills these. The memory stays.
void StartRows(const QuantizedModule& module, RowRange range, QuantizedLinear& rows);
// Rows of codes of one byte, stored [out, in] as `dtype`.
void ReadByteCodes(const ModuleTensors& tensors, std::string_view suffix, DType dtype,
                   const QuantizedModule& module, RowRange range, QuantizedLinear& rows);
// The same of E4M3 codes; throws at the first NaN.
void ReadFp8Codes(const ModuleTensors& tensors, std::string_view suffix,
                  const QuantizedModule& module, RowRange range, QuantizedLinear& rows);

// Bytes of `lines` equal lines: those of the lines [range.begin, range.end).
std::span<const std::byte> LinesOf(std::span<const std::byte> bytes, int64_t lines, RowRange range);
// A copy of elements [range.begin, range.end) of each line, of `size` bytes each.
std::vector<std::byte> ColumnsOf(std::span<const std::byte> bytes, int64_t lines, RowRange range,
                                 int64_t size);

// Words of 32 bits from bytes of any alignment.
std::vector<uint32_t> ToWords(std::span<const std::byte> bytes);

template <typename T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_MODULE_TENSORS_H_
