// The GGUF container, version 3, little-endian: metadata, tensor infos, aligned tensor data.
//
//   "GGUF" | u32 3 | u64 tensors | u64 entries | entries | infos | padding | data
//   entry   string key | u32 type | value; string: u64 length, bytes; array: u32 type, u64 count
//   info    string name | u32 n | u64 sizes[n], innermost first | u32 ggml type | u64 offset
//
// Tensors follow each other in the order of their infos; each begins at a multiple of the alignment
// from the beginning of the data (formats.md section 7.1).
#ifndef QUANTMILL_FORMATS_GGUF_H_
#define QUANTMILL_FORMATS_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/file.h"
#include "formats/gguf/block_types.h"
#include "formats/gguf/metadata.h"
#include "formats/tensor_file_writer.h"

namespace quantmill {

inline constexpr uint64_t kDefaultGgufAlignment = 32;
inline constexpr size_t kMaxGgufTensorName = 63;  // ggml's buffer, less the NUL
inline constexpr size_t kMaxGgufDimensions = 4;
// Elements of one metadata array: far above any vocabulary, and a bound on what a short file of
// empty strings makes us allocate.
inline constexpr uint64_t kMaxGgufArray = uint64_t{1} << 26;

// One tensor of a file.
struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t>
      shape;            // outermost first, as in safetensors: the reverse of the file's order
  uint64_t offset = 0;  // of its first byte in the file
  uint64_t bytes = 0;

  int64_t elements() const;                                          // cannot overflow once parsed
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }  // the dimension of blocks
  uint64_t end() const { return offset + bytes; }
};

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file
  uint64_t alignment = kDefaultGgufAlignment;
  uint64_t data_offset = 0;  // of the tensor data in the file
};

// Parses and checks the head of a file of `file_size` bytes. `bytes`: the file, or as much of it as
// holds the header. Every length and offset is checked before it is used, so that no more is
// allocated than a small multiple of the file's size. Throws Error(kBadInput) whose `where` is
// `path` and whose text names tensor or key and the byte offset in the file. Refused by name: other
// versions, big-endian files, the GGML formats before GGUF, types that ggml does not have, arrays
// of arrays. Only the padding after the last tensor may be missing.
GgufHeader ParseGgufHeader(std::span<const std::byte> bytes, uint64_t file_size,
                           const std::string& path);

// A file opened for reading. Move-only; const methods may be called from any thread.
class GgufFile {
 public:
  static GgufFile Open(const std::filesystem::path& path);

  const MappedFile& file() const { return file_; }
  const GgufMetadata& metadata() const { return header_.metadata; }
  const std::vector<GgufTensor>& tensors() const { return header_.tensors; }  // order of the file
  uint64_t alignment() const { return header_.alignment; }

  // Null if there is no such tensor. The pointer lives as long as this object.
  const GgufTensor* Find(std::string_view name) const;
  // `tensor` must come from this file. Rows of RowBytes(type, cols()) one after another.
  std::span<const std::byte> Bytes(const GgufTensor& tensor) const {
    return file_.bytes().subspan(tensor.offset, tensor.bytes);
  }

 private:
  GgufFile(MappedFile file, GgufHeader header);

  MappedFile file_;
  GgufHeader header_;
  std::vector<size_t> by_name_;  // indices of tensors
};

// What a writer is told in advance of one tensor.
struct GgufDeclaration {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // outermost first

  // Throws Error(kBadInput) for a negative or overflowing shape, more than four dimensions, or rows
  // that do not fill whole blocks.
  uint64_t bytes() const;
};

// Writes one file; tensors may come in any order and in parts. Metadata and tensors keep the order
// in which they are declared, padding is zero: equal contents give equal bytes. The file is made
// complete or is not valid to use; OutputFolder (output_folder.h) publishes it under its final
// name. Move-only; not thread-safe for one object.
class GgufWriter : public TensorFileWriter {
 public:
  // Creates `path` (it must not exist) and writes the header. general.alignment must not be among
  // the entries: it follows from `alignment`, a power of two of 8 or more, and is written only if
  // that is not 32. Throws Error(kBadInput) for a bad or doubly declared key or tensor, an array
  // or string that readers refuse, Error(kEnvironment) from the disk.
  GgufWriter(const std::filesystem::path& path, const std::vector<GgufEntry>& metadata,
             const std::vector<GgufDeclaration>& tensors,
             uint64_t alignment = kDefaultGgufAlignment);
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_H_
