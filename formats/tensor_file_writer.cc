#include "formats/tensor_file_writer.h"

#include "kernels/core/error.h"

namespace quantmill {

void TensorFileWriter::Place(const std::string& name, uint64_t begin, uint64_t bytes) {
  slots_.emplace(name, Slot{begin, bytes, 0});
  missing_ += bytes;
}

TensorFileWriter::Slot& TensorFileWriter::Find(std::string_view name) {
  const auto found = slots_.find(name);
  Check(found != slots_.end(), "tensor '" + std::string(name) + "' was not declared");
  return found->second;
}

void TensorFileWriter::Write(std::string_view name, std::span<const std::byte> bytes) {
  Check(Find(name).bytes == bytes.size(),
        "tensor '" + std::string(name) + "': wrong size for its declaration");
  WriteAt(name, 0, bytes);
}

void TensorFileWriter::WriteAt(std::string_view name, uint64_t offset,
                               std::span<const std::byte> bytes) {
  Slot& slot = Find(name);
  Check(offset <= slot.bytes && bytes.size() <= slot.bytes - offset,
        "tensor '" + std::string(name) + "': part outside the tensor");
  Check(bytes.size() <= slot.bytes - slot.written,
        "tensor '" + std::string(name) + "': a part was written twice");
  file_.WriteAt(slot.begin + offset, bytes);
  slot.written += bytes.size();
  missing_ -= bytes.size();
}

void TensorFileWriter::Finish() {
  for (const auto& [name, slot] : slots_) {
    Check(slot.written == slot.bytes, "tensor '" + name + "' was not written completely");
  }
  file_.Finish();
}

}  // namespace quantmill
