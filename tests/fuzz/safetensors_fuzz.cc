// Any bytes are a safetensors file or an Error(kBadInput); what parses describes only bytes that
// are there.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "kernels/core/error.h"

std::vector<std::string> FuzzSeeds() {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}})";
  std::vector<std::string> seeds;
  for (const std::string& text : {header, std::string("{}      ")}) {
    const uint64_t size = text.size();
    std::string bytes(sizeof(size), '\0');
    std::memcpy(bytes.data(), &size, sizeof(size));
    seeds.push_back(bytes + text + (text == header ? std::string(14, 'd') : ""));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto header = quantmill::ParseSafetensorsHeader(bytes, size, "fuzz");
    for (const quantmill::TensorInfo& info : header.tensors) {
      if (info.begin > info.end || info.end > size - header.data_offset) std::abort();
      if (info.elements() < 0) std::abort();
    }
  } catch (const quantmill::Error& error) {
    if (error.code() != quantmill::ErrorCode::kBadInput) std::abort();
  }
  return 0;
}
