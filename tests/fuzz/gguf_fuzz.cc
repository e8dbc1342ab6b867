// Any bytes are a GGUF file or an Error(kBadInput); what parses describes only bytes that are
// there.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "kernels/core/error.h"

namespace {

template <typename T>
std::string Raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}
std::string Text(const std::string& text) { return Raw<uint64_t>(text.size()) + text; }

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string empty = "GGUF" + Raw<uint32_t>(3) + Raw<uint64_t>(0) + Raw<uint64_t>(0);
  std::string full = "GGUF" + Raw<uint32_t>(3) + Raw<uint64_t>(2) + Raw<uint64_t>(4);
  full += Text("s") + Raw<uint32_t>(8) + Text("text");
  full += Text("general.alignment") + Raw<uint32_t>(4) + Raw<uint32_t>(64);
  full += Text("a") + Raw<uint32_t>(9) + Raw<uint32_t>(8) + Raw<uint64_t>(2) + Text("x") + Text("");
  full += Text("f") + Raw<uint32_t>(9) + Raw<uint32_t>(6) + Raw<uint64_t>(3) + std::string(12, 'f');
  full += Text("t") + Raw<uint32_t>(2) + Raw<uint64_t>(32) + Raw<uint64_t>(2) + Raw<uint32_t>(2) +
          Raw<uint64_t>(0);
  full += Text("u") + Raw<uint32_t>(1) + Raw<uint64_t>(3) + Raw<uint32_t>(0) + Raw<uint64_t>(64);
  full.resize((full.size() + 63) / 64 * 64);
  full += std::string(128, 'd');
  return {empty, full};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto header = quantmill::ParseGgufHeader(bytes, size, "fuzz");
    for (const quantmill::GgufTensor& tensor : header.tensors) {
      if (tensor.bytes == 0) continue;
      if (tensor.offset > size || tensor.bytes > size - tensor.offset) std::abort();
      if (tensor.offset < header.data_offset || tensor.elements() <= 0) std::abort();
    }
  } catch (const quantmill::Error& error) {
    if (error.code() != quantmill::ErrorCode::kBadInput) std::abort();
  }
  return 0;
}
