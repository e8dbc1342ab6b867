#include "formats/module_tensors.h"

#include <cstring>

#include "kernels/core/error.h"

namespace quantmill {

const TensorInfo& ModuleTensors::Info(std::string_view suffix) const {
  const std::string name = Name(suffix);
  if (!checkpoint_.Has(name)) {
    throw Error(ErrorCode::kBadInput, checkpoint_.folder().string(),
                "has no tensor '" + name + "', which its module needs");
  }
  return checkpoint_.Info(name);
}

std::span<const std::byte> ModuleTensors::Expect(std::string_view suffix, std::string_view dtype,
                                                 const std::vector<int64_t>& shape) const {
  const TensorInfo& info = Info(suffix);
  if (info.dtype != dtype || info.shape != shape) {
    Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                     std::string(dtype) + " " + ShapeString(shape));
  }
  return checkpoint_.Bytes(info.name);
}

std::pair<int64_t, int64_t> ModuleTensors::ExpectMatrix(std::string_view suffix,
                                                        std::string_view dtype) const {
  constexpr int64_t kMax = int64_t{1} << 28;
  const TensorInfo& info = Info(suffix);
  if (info.dtype != dtype || info.shape.size() != 2) {
    Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                     std::string(dtype) + " of two dimensions");
  }
  for (const int64_t size : info.shape) {
    if (size < 1 || size > kMax) {
      Fail(suffix, "has the impossible shape " + ShapeString(info.shape));
    }
  }
  return {info.shape[0], info.shape[1]};
}

void ModuleTensors::Fail(std::string_view suffix, const std::string& what) const {
  throw Error(ErrorCode::kBadInput, checkpoint_.Location(Name(suffix)), what);
}

std::vector<uint32_t> ToWords(std::span<const std::byte> bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint32_t));
  return words;
}

}  // namespace quantmill
