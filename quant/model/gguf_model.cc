#include "quant/model/gguf_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "formats/folder_image.h"
#include "formats/gguf/code_reader.h"
#include "formats/gguf/codec.h"
#include "formats/gguf/decoded_tensors.h"
#include "formats/gguf/model_files.h"
#include "formats/gguf/tokenizer_files.h"
#include "kernels/core/error.h"
#include "quant/model/families.h"
#include "quant/model/gguf_config.h"
#include "quant/model/gguf_layout.h"

namespace quantmill {
namespace {

// Where the checkpoint's rows lie in the file. Empty: as they are.
std::vector<int64_t> RowsInFile(int64_t rows, const GgufRowOrder& order) {
  if (!order.moves()) return {};
  std::vector<int64_t> at(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    at[static_cast<size_t>(order.SourceOf(row, rows))] = row;
  }
  return at;
}

std::optional<DType> DenseTypeOf(GgmlType type) {
  if (type == GgmlType::kF32) return DType::kF32;
  if (type == GgmlType::kF16) return DType::kF16;
  if (type == GgmlType::kBf16) return DType::kBF16;
  return std::nullopt;
}

// The tensors of the layout, found and checked.
class Tensors {
 public:
  Tensors(const GgufModelFiles& files, const GgufLayout& layout, const GgufReading& reading)
      : files_(files), reading_(reading) {
    for (const GgufMatrix& matrix : layout.matrices) AddMatrix(matrix);
    const DType type = TypeOfMatrices();
    for (const GgufFloats& floats : layout.floats) AddFloats(floats, type);
    known_.insert("rope_freqs.weight");  // the configuration has them, or they are all 1
    for (const GgufTable& table : layout.tables) known_.insert(table.name);
    for (const auto& [name, place] : files.tensors()) {
      if (known_.contains(name)) continue;
      throw Error(ErrorCode::kBadInput, place.Location(),
                  "belongs to no layer of " + layout.architecture +
                      " that is known: what the file computes is not known either");
    }
  }

  // Of most weights.
  DType TypeOfMatrices() const {
    std::map<DType, int64_t> elements;
    for (const GgufDecoded& tensor : tensors_) {
      if (tensor.shape.size() == 2) elements[tensor.dtype] += tensor.shape[0] * tensor.shape[1];
    }
    return std::ranges::max_element(elements, {}, [](const auto& e) { return e.second; })->first;
  }
  std::vector<GgufDecoded> Take() && { return std::move(tensors_); }

 private:
  const GgufPlace& Find(const std::string& name) {
    known_.insert(name);
    const GgufPlace* place = files_.Find(name);
    if (place == nullptr) {
      throw Error(ErrorCode::kBadInput, files_.path().string(),
                  "tensor '" + name + "' is missing: the file does not hold the whole model");
    }
    if (!HasCodec(place->tensor->type)) {
      throw Error(ErrorCode::kBadInput, place->Location(),
                  "is of type " + std::string(NameOf(place->tensor->type)) +
                      ", which is not read; a file of the same model in another type may do");
    }
    return *place;
  }
  const GgufPlace& FindOfShape(const std::string& name, const std::vector<int64_t>& shape) {
    const GgufPlace& place = Find(name);
    if (place.tensor->shape != shape) {
      throw Error(ErrorCode::kBadInput, place.Location(),
                  "has shape " + ShapeString(place.tensor->shape) + ", but the metadata asks for " +
                      ShapeString(shape));
    }
    return place;
  }

  void AddMatrix(const GgufMatrix& matrix) {
    const LinearSpec& linear = matrix.linear;
    const GgufPlace& place = FindOfShape(matrix.name, matrix.shape());
    const DType own = DenseTypeOf(place.tensor->type).value_or(DType::kF16);
    const std::string name =
        matrix.role == GgufRole::kEmbedding ? linear.name : linear.name + ".weight";
    tensors_.push_back({name, place, reading_.dense.value_or(own), linear.stored_shape(),
                        RowsInFile(linear.out, matrix.order), matrix.first_row(), linear.transposed,
                        0});
  }

  void AddFloats(const GgufFloats& floats, DType wanted) {
    const GgufPlace& place = FindOfShape(floats.name, floats.stored_shape());
    const GgufTensor& tensor = *place.tensor;
    const auto row_bytes = static_cast<size_t>(*RowBytes(tensor.type, tensor.cols()));
    std::vector<float> row(static_cast<size_t>(tensor.cols()));
    const std::span<const std::byte> bytes = place.file->Bytes(tensor);
    bool exact = true;
    for (size_t at = 0; exact && at < bytes.size(); at += row_bytes) {
      DecodeRow(tensor.type, bytes.subspan(at, row_bytes), row);
      exact = std::ranges::all_of(row, [&](float x) {
        const float value = x - floats.added;
        return RoundTo(wanted, value) == value;
      });
    }
    tensors_.push_back({floats.source, place, exact ? wanted : DType::kF32, floats.shape,
                        RowsInFile(floats.shape.front(), floats.order), 0, false, floats.added});
  }

  const GgufModelFiles& files_;
  const GgufReading& reading_;
  std::vector<GgufDecoded> tensors_;
  std::set<std::string> known_;
};

std::string ConfigNameOf(DType type) {
  if (type == DType::kF32) return "float32";
  return type == DType::kBF16 ? "bfloat16" : "float16";
}

void AddTokenizer(const GgufMetadata& metadata, const DecoderSpec& spec, const std::string& pre,
                  FolderImage& image) {
  const auto* tokens = metadata.Array<std::string>("tokenizer.ggml.tokens");
  if (tokens != nullptr && std::ssize(*tokens) != spec.vocab) {
    throw Error(ErrorCode::kBadInput, metadata.where(),
                "metadata key 'tokenizer.ggml.tokens' has " + std::to_string(tokens->size()) +
                    " tokens, but tensor 'token_embd.weight' has " + std::to_string(spec.vocab) +
                    " rows");
  }
  try {
    image.files = TokenizerFiles(metadata, ReadGgufTokenizer(metadata, pre), spec.max_positions);
  } catch (const Error& error) {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
      image.missing.emplace(name, error);
    }
  }
}

}  // namespace

bool IsGguf(const std::string& model) {
  const std::filesystem::path path(model);
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  if (path.extension() == ".gguf") return true;
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  return std::string_view(magic, sizeof(magic)) == "GGUF";
}

ModelFiles OpenGguf(const std::string& path, const GgufReading& reading) {
  GgufModelFiles files = GgufModelFiles::Open(path);
  FolderImage image;
  image.path = path;
  image.weight_files = files.paths();
  image.config = ConfigOfGguf(files);
  const std::string where = path + ", as config.json";
  const DecoderSpec spec = DescribeDecoder(image.config, where);
  Tensors found(files, DescribeGguf(spec, ConfigReader(image.config, where)), reading);
  image.config["torch_dtype"] = ConfigNameOf(found.TypeOfMatrices());
  AddTokenizer(files.metadata(), spec, reading.pre, image);
  auto tensors = std::make_unique<GgufTensors>(std::move(files), std::move(found).Take());
  const GgufTensors& borrowed = *tensors;
  image.tensors = std::move(tensors);

  ModelFiles model;
  model.checkpoint = std::make_unique<Checkpoint>(Checkpoint::OfImage(std::move(image)));
  if (reading.codes) model.artifact = OpenGgufCodes(*model.checkpoint, borrowed, {spec.embedding});
  return model;
}

ModelFiles OpenModelFiles(const std::string& model, const GgufReading& gguf) {
  if (IsGguf(model)) return OpenGguf(model, gguf);
  ModelFiles files;
  files.checkpoint = std::make_unique<Checkpoint>(Checkpoint::Open(model));
  files.artifact = OpenArtifactReader(*files.checkpoint);
  return files;
}

bool HoldsBlocks(const Checkpoint& checkpoint) {
  return checkpoint.is_image() &&
         std::ranges::any_of(checkpoint.names(), [&](const std::string& name) {
           return !DTypeFromName(checkpoint.Stored(name).type);
         });
}

std::string StoredTypes(const Checkpoint& image) {
  std::map<std::string, uint64_t> bytes;
  for (const std::string& name : image.names()) {
    if (image.Info(name).shape.size() < 2) continue;
    const StoredTensor stored = image.Stored(name);
    bytes[stored.type] += stored.bytes;
  }
  std::vector<std::pair<uint64_t, std::string>> types;
  types.reserve(bytes.size());
  for (const auto& [type, size] : bytes) types.emplace_back(size, type);
  std::ranges::sort(types, std::greater<>());
  std::string text = "gguf";
  for (const auto& [size, type] : types) text += (text == "gguf" ? " " : ", ") + type;
  return text;
}

}  // namespace quantmill
