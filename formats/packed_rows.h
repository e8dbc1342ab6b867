// Output rows of a quantized module on their way to a file: packed by bands, from any thread, into
// buffers that are used again.
#ifndef QUANTMILL_FORMATS_PACKED_ROWS_H_
#define QUANTMILL_FORMATS_PACKED_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint_writer.h"
#include "formats/row_band.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// A linear layer that is, or will be, stored quantized. `name` is the module's: its dense tensor
// would be `<name>.weight`. A bias stays a dense tensor and is no business of the format.
struct QuantizedModule {
  std::string name;
  QuantScheme scheme;
  int64_t out = 0;
  int64_t in = 0;
};

// Output rows [begin, end) of a module.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t count() const { return end - begin; }
};

// Rows are read and packed apart from others where they begin at a multiple of this, and end at one
// or with the module: every format has then whole words for them, and blocks of rows stay whole.
int64_t RowUnit(const QuantScheme& scheme);

// The bytes of one tensor that belong to some rows: `lines` runs of `line_bytes`, the first at
// `data`, `stride` bytes apart. One run where rows are the tensor's first dimension; none where the
// tensor knows no rows and other rows bring it.
struct TensorRows {
  std::byte* data = nullptr;
  int64_t lines = 0;
  size_t line_bytes = 0;
  size_t stride = 0;
};

// Copies to the runs of `to`, from `bytes` without gaps. Check fails for another size, unless there
// is no run.
void Fill(const TensorRows& to, std::span<const std::byte> bytes);

// How modules become tensors. Stateless: methods may be called from any thread.
class RowPacker {
 public:
  virtual ~RowPacker() = default;

  // The tensors of a module. With fewer outputs, a multiple of RowUnit or none, they differ in at
  // most one dimension each: that along which outputs lie.
  virtual std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const = 0;
  // `rows`: outputs [first, first + rows.out) of `module` (RowUnit). `to`: their places in the
  // tensors of Declare, in its order.
  virtual void PackRows(const QuantizedModule& module, int64_t first, const QuantizedLinear& rows,
                        std::span<const TensorRows> to) const = 0;

  // Whether the codes of such a module are stored in the words of RowBand, so that PackWords takes
  // them as they are.
  virtual bool HasWords(const QuantizedModule&) const { return false; }
  // PackRows of a band that has words: the same bytes. REQUIRES: HasWords.
  virtual void PackWords(const QuantizedModule& module, int64_t first, const RowBand& band,
                         std::span<const TensorRows> to) const;
};

// The tensors of consecutive rows of one module, as a packer makes them. Made once for many
// modules: the memory stays.
class PackedRows {
 public:
  // Forgets what it held and makes room for `rows` of `module`, which begin and end as RowUnit
  // says. `packer` must outlive what follows.
  void Begin(const RowPacker& packer, const QuantizedModule& module, RowRange rows);
  // `band`: outputs of the module from `first` on, within the rows of Begin (RowUnit). From several
  // threads at once for different bands.
  void Pack(int64_t first, const QuantizedLinear& band);
  // The same of codes or words, for which the packer must have HasWords.
  void Pack(int64_t first, const RowBand& band);
  // Once all rows are packed. Nothing before the first Begin.
  void WriteTo(CheckpointWriter& writer) const;

 private:
  // Of one tensor. Offsets in bytes.
  struct Part {
    std::string name;
    TensorRows place;     // in the memory
    uint64_t offset = 0;  // of the first run in the tensor
    uint64_t stride = 0;  // from run to run in the tensor
  };

  // The places of rows [first, first + out) of the module.
  std::vector<TensorRows> PlacesOf(int64_t first, int64_t out) const;

  const RowPacker* packer_ = nullptr;
  QuantizedModule module_;
  RowRange rows_;
  std::vector<Part> parts_;
  std::vector<std::byte> memory_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_PACKED_ROWS_H_
