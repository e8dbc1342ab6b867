// Any bytes are JSON or an Error(kBadInput). Strings of what parses are valid UTF-8.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

std::vector<std::string> FuzzSeeds() {
  return {R"({"a":[1,-2.5,null,true,"x\u00e9"],"b":{"a":{}}})",
          R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const nlohmann::json value = quantmill::ParseJson(text, "fuzz");
    // dump() throws on invalid UTF-8, which the parser must have refused.
    if (quantmill::FindInvalidUtf8(value.dump())) std::abort();
  } catch (const quantmill::Error& error) {
    if (error.code() != quantmill::ErrorCode::kBadInput) std::abort();
  }
  return 0;
}
