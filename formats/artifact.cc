// The only file that knows all artifact formats.
#include "formats/artifact.h"

#include <array>
#include <nlohmann/json.hpp>

#include "formats/awq.h"
#include "formats/compressed_tensors.h"
#include "formats/fp8.h"
#include "formats/gptq.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

std::array<const ArtifactWriterFormat*, 5> Writers() {
  return {&CompressedTensorsFormat(), &GptqFormat(), &GptqV2Format(), &AwqFormat(), &Fp8Format()};
}

}  // namespace

std::string_view NameOf(TensorProblem::Kind kind) {
  switch (kind) {
    case TensorProblem::Kind::kMissing:
      return "missing";
    case TensorProblem::Kind::kExtra:
      return "extra";
    case TensorProblem::Kind::kConstant:
      return "constant";
    case TensorProblem::Kind::kNonFinite:
      return "not finite";
    case TensorProblem::Kind::kInvalid:
      return "invalid";
  }
  return "";
}

void ArtifactWriterFormat::Write(const std::string& module, const QuantizedLinear& linear,
                                 CheckpointWriter& writer) const {
  PackedRows packed;
  packed.Begin(*this, {module, linear.scheme, linear.out, linear.in}, {0, linear.out});
  packed.Pack(0, linear);
  packed.WriteTo(writer);
}

QuantizedLinear ArtifactReader::Read(const std::string& module) const {
  const QuantizedModule described = Describe(module);
  QuantizedLinear linear;
  ReadRows(described, {0, described.out}, linear);
  return linear;
}

void ArtifactReader::ReadWords(const QuantizedModule&, RowRange, RowBand&) const {
  Check(false, "ReadWords: the file has no words");
}

std::unique_ptr<ArtifactReader> OpenArtifactReader(const Checkpoint& checkpoint) {
  const auto found = checkpoint.config().find("quantization_config");
  if (found == checkpoint.config().end() || found->is_null()) return nullptr;
  const std::string where = (checkpoint.folder() / "config.json").string();
  const auto method = found->is_object() ? found->find("quant_method") : found->end();
  if (method == found->end() || !method->is_string()) {
    throw Error(ErrorCode::kBadInput, where, "quantization_config has no quant_method");
  }
  if (*method == "compressed-tensors") return OpenCompressedTensors(checkpoint);
  if (*method == "gptq") return OpenGptq(checkpoint);
  if (*method == "awq") return OpenAwq(checkpoint);
  if (*method == "fp8") return OpenFp8(checkpoint);
  throw Error(ErrorCode::kBadInput, where,
              "quant_method '" + method->get<std::string>() +
                  "' cannot be read, only compressed-tensors, gptq, awq and fp8");
}

std::vector<std::string> FormatNames() {
  std::vector<std::string> names;
  for (const ArtifactWriterFormat* format : Writers()) names.emplace_back(format->name());
  names.emplace_back("gguf");
  return names;
}

const ArtifactWriterFormat& FindArtifactFormat(std::string_view name) {
  for (const ArtifactWriterFormat* format : Writers()) {
    if (name == format->name()) return *format;
  }
  std::string known;
  for (const std::string& format : FormatNames()) known += (known.empty() ? "" : ", ") + format;
  throw Error(ErrorCode::kUsage, "--format",
              "unknown format '" + std::string(name) + "'; known: " + known);
}

}  // namespace quantmill
