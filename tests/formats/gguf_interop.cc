// Helper of scripts/interop_gguf, not a test.
//   gguf_interop IN OUT    copies the GGUF file IN with its metadata; adds for each tensor NAME
//   that
//                          we decode "values.NAME" (F32), and for a tensor called "source" (F32)
//                          "encoded.TYPE" in every type that we encode, weighted by the tensor
//                          "importance" if there is one.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf/codec.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

std::vector<float> Decoded(const GgufFile& file, const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DecodeRow(tensor.type, file.Bytes(tensor), values);
  return values;
}

std::vector<GgmlType> CodecTypes() {
  std::vector<GgmlType> types;
  for (const GgmlTypeInfo& info : AllGgmlTypes()) {
    if (HasCodec(info.type)) types.push_back(info.type);
  }
  return types;
}

void Convert(const std::string& from, const std::string& to) {
  const GgufFile file = GgufFile::Open(from);
  const GgufTensor* source = file.Find("source");
  const GgufTensor* importance = file.Find("importance");
  std::vector<GgufDeclaration> declared;
  for (const GgufTensor& tensor : file.tensors()) {
    declared.push_back({tensor.name, tensor.type, tensor.shape});
    if (HasCodec(tensor.type)) {
      declared.push_back({"values." + tensor.name, GgmlType::kF32, tensor.shape});
    }
  }
  if (source != nullptr) {
    for (const GgmlType type : CodecTypes()) {
      declared.push_back({"encoded." + std::string(NameOf(type)), type, source->shape});
    }
  }
  GgufWriter writer(to, file.metadata().entries(), declared);
  for (const GgufTensor& tensor : file.tensors()) {
    writer.Write(tensor.name, file.Bytes(tensor));
    if (!HasCodec(tensor.type)) continue;
    const std::vector<float> values = Decoded(file, tensor);
    writer.Write("values." + tensor.name, std::as_bytes(std::span(values)));
  }
  if (source != nullptr) {
    const std::vector<float> x = Decoded(file, *source);
    const std::vector<float> weights =
        importance == nullptr ? std::vector<float>() : Decoded(file, *importance);
    for (const GgmlType type : CodecTypes()) {
      std::vector<std::byte> bytes(*RowBytes(type, static_cast<int64_t>(x.size())));
      EncodeRow(type, x, weights, bytes);
      writer.Write("encoded." + std::string(NameOf(type)), bytes);
    }
  }
  writer.Finish();
}

}  // namespace
}  // namespace quantmill

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("gguf_interop IN OUT\n", stderr);
    return 2;
  }
  try {
    quantmill::Convert(argv[1], argv[2]);
  } catch (const quantmill::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
