// The safetensors container: u64 header size, JSON header, data. Every rule of the reference reader
// is checked, plus duplicate keys, which the reference misreports.
#ifndef QUANTMILL_FORMATS_SAFETENSORS_H_
#define QUANTMILL_FORMATS_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/file.h"
#include "formats/tensor_file_writer.h"
#include "kernels/core/dtype.h"

namespace quantmill {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the reference's limit

// Bits of one element of a dtype as safetensors spells it; 0 for a name the format does not have.
// Some legal ones (F4, F8_E5M2, U64...) have no DType: they can be carried through, not read.
int BitsOfSafetensorsType(std::string_view dtype);
// Position in the reference's list of dtypes; its writer lays out higher ones first.
int RankOfSafetensorsType(std::string_view dtype);
std::optional<DType> DTypeFromName(std::string_view dtype);

// One tensor of a file.
struct TensorInfo {
  std::string name;
  std::string dtype;           // as spelled in the file; always a legal safetensors name
  std::vector<int64_t> shape;  // C order, no strides; empty: a scalar
  uint64_t begin = 0;          // bytes in the data buffer, end exclusive
  uint64_t end = 0;

  uint64_t bytes() const { return end - begin; }
  int64_t elements() const;  // product of the shape, cannot overflow once parsed
  std::optional<DType> type() const { return DTypeFromName(dtype); }
};

// What a writer is told in advance of one tensor.
struct TensorDeclaration {
  std::string name;
  std::string dtype;  // a legal safetensors name
  std::vector<int64_t> shape;

  // Throws Error(kBadInput) for an unknown dtype, a negative or overflowing shape, or a size that
  // is no whole number of bytes.
  uint64_t bytes() const;
};
TensorDeclaration Declare(std::string name, DType dtype, std::vector<int64_t> shape);

// "[4096, 128]"
std::string ShapeString(std::span<const int64_t> shape);

struct SafetensorsHeader {
  uint64_t data_offset = 0;                     // of the data buffer in the file
  std::vector<TensorInfo> tensors;              // sorted by name
  std::map<std::string, std::string> metadata;  // "__metadata__", empty if absent
};

// Parses and checks the first bytes of a file of `file_size` bytes. `bytes`: the file, or as much
// of it as holds the header. Throws Error(kBadInput) whose `where` is `path` and whose text names
// the tensor and the byte offset in the file.
SafetensorsHeader ParseSafetensorsHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                         const std::string& path);

// A file opened for reading. Move-only; const methods may be called from any thread.
class SafetensorsFile {
 public:
  static SafetensorsFile Open(const std::filesystem::path& path);

  const MappedFile& file() const { return file_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }  // sorted by name
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  // Null if there is no such tensor. The pointer lives as long as this object.
  const TensorInfo* Find(std::string_view name) const;
  // `info` must come from this file. No alignment is promised: a file may have an odd header size.
  std::span<const std::byte> Bytes(const TensorInfo& info) const;
  // Of the tensor's first byte in the file.
  uint64_t FileOffset(const TensorInfo& info) const { return header_.data_offset + info.begin; }

 private:
  SafetensorsFile(MappedFile file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}

  MappedFile file_;
  SafetensorsHeader header_;
};

// Writes one file; tensors may come in any order and in parts. The layout depends on the
// declarations alone (dtypes of wide alignment first, then names, as the reference writes), so
// equal contents give equal bytes. Move-only; not thread-safe for one object.
class SafetensorsWriter : public TensorFileWriter {
 public:
  // Creates `path` (it must not exist) and writes the header. `metadata` must not be empty: some
  // readers fail on an absent or empty one. Throws Error(kBadInput) for a bad or doubly declared
  // tensor, Error(kEnvironment) from the disk.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_SAFETENSORS_H_
