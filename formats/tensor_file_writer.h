// A file of tensors whose places are known before the first is written. Private to formats/.
#ifndef QUANTMILL_FORMATS_TENSOR_FILE_WRITER_H_
#define QUANTMILL_FORMATS_TENSOR_FILE_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "formats/file.h"

namespace quantmill {

// What the writers of single formats share; they lay the file out. Tensors may come in any order
// and in parts. Move-only; not thread-safe for one object.
class TensorFileWriter {
 public:
  // All bytes of one tensor. Check fails for a name that was not declared or a wrong size. Throws
  // Error(kEnvironment) from the disk, as the others do.
  void Write(std::string_view name, std::span<const std::byte> bytes);
  // Bytes [offset, offset + bytes.size()) of one tensor. Parts must not overlap.
  void WriteAt(std::string_view name, uint64_t offset, std::span<const std::byte> bytes);
  // True once every byte of every tensor has been written.
  bool complete() const { return missing_ == 0; }
  // Syncs and closes. Check fails, naming a tensor, unless complete(). Without Finish the file is
  // not valid to use.
  void Finish();

 protected:
  explicit TensorFileWriter(OutputFile file) : file_(std::move(file)) {}

  OutputFile& file() { return file_; }
  // begin: of the tensor's first byte in the file. Names are distinct.
  void Place(const std::string& name, uint64_t begin, uint64_t bytes);

 private:
  struct Slot {
    uint64_t begin = 0;
    uint64_t bytes = 0;
    uint64_t written = 0;
  };
  Slot& Find(std::string_view name);

  OutputFile file_;
  std::map<std::string, Slot, std::less<>> slots_;
  uint64_t missing_ = 0;  // bytes
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TENSOR_FILE_WRITER_H_
