#include "quant/pipeline/savepoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "formats/file.h"
#include "formats/sha256.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kPurpose = "savepoints";
constexpr const char* kIdentity = "identity.json";
constexpr uint64_t kMostText = uint64_t{1} << 30;  // a record holds foldings and coverages

// Codes of at most four bits share a byte, the first of two in its low half.
bool InPairs(const QuantScheme& scheme) { return scheme.bits <= 4; }

std::vector<std::byte> PairsOf(const std::vector<int8_t>& codes) {
  std::vector<std::byte> pairs((codes.size() + 1) / 2);
  for (size_t i = 0; i < codes.size(); ++i) {
    pairs[i / 2] |= static_cast<std::byte>((codes[i] & 15) << (i % 2 * 4));
  }
  return pairs;
}

std::vector<int8_t> CodesOf(std::span<const std::byte> pairs, const QuantScheme& scheme,
                            size_t count) {
  const bool is_signed = scheme.code_type == CodeType::kInt;
  std::vector<int8_t> codes(count);
  for (size_t i = 0; i < count; ++i) {
    const int code = static_cast<int>(pairs[i / 2] >> (i % 2 * 4)) & 15;
    codes[i] = static_cast<int8_t>(is_signed && code > 7 ? code - 16 : code);
  }
  return codes;
}

std::vector<TensorDeclaration> DeclarationsOf(const SavedLayer& layer) {
  const QuantizedModule& module = layer.module;
  if (layer.blocks) {
    const auto row = static_cast<int64_t>(RowBytes(*layer.blocks, module.in).value());
    return {Declare(module.name + ".rows", DType::kU8, {module.out, row})};
  }
  const int64_t count = module.out * module.in;
  const int64_t groups = module.scheme.GroupsFor(module.in);
  std::vector<TensorDeclaration> tensors = {
      Declare(module.name + ".codes", DType::kU8,
              {InPairs(module.scheme) ? (count + 1) / 2 : count}),
      Declare(module.name + ".scales", DType::kF32, {module.out, groups}),
      Declare(module.name + ".constants", DType::kF32, {3})};
  if (!module.scheme.symmetric) {
    tensors.push_back(Declare(module.name + ".zero_points", DType::kI8, {module.out, groups}));
  }
  return tensors;
}

// The bytes of one tensor of the layer, whose declaration must be as of today.
std::span<const std::byte> Expect(const SafetensorsFile& file, const TensorDeclaration& wanted) {
  const TensorInfo* info = file.Find(wanted.name);
  if (info == nullptr || info->dtype != wanted.dtype || info->shape != wanted.shape) {
    throw Error(ErrorCode::kBadInput, file.file().path().string(),
                "holds no tensor '" + wanted.name + "' of type " + wanted.dtype + " and shape " +
                    ShapeString(wanted.shape) + "; remove the folder and begin again");
  }
  return file.Bytes(*info);
}

template <typename T>
std::vector<T> As(std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::string NameOf(size_t block, const char* ending) {
  return fmt::format("block-{:05}.{}", block, ending);
}

// In a row from the first.
size_t FinishedBlocks(const fs::path& folder) {
  size_t blocks = 0;
  while (fs::exists(folder / NameOf(blocks, "json"))) ++blocks;
  return blocks;
}

void RefuseBlocks(const fs::path& folder, size_t blocks) {
  if (blocks == 0) return;
  throw Error(ErrorCode::kUsage, folder.string(),
              fmt::format("an earlier run toward this output stopped with {} finished block{}: "
                          "--resume goes on from there, --force begins again",
                          blocks, blocks == 1 ? "" : "s"));
}

json ReadJson(const fs::path& path) {
  json value = json::parse(ReadTextFile(path, kMostText), nullptr, false);
  if (value.is_object()) return value;
  throw Error(ErrorCode::kBadInput, path.string(),
              "is no JSON object; remove the folder and begin again");
}

}  // namespace

LayerSolution SavedBlock::Read(const SavedLayer& layer) const {
  const QuantizedModule& module = layer.module;
  const std::vector<TensorDeclaration> tensors = DeclarationsOf(layer);
  LayerSolution solution;
  if (layer.blocks) {
    solution.rows = As<std::byte>(Expect(file_, tensors[0]));
    return solution;
  }
  QuantizedLinear& linear = solution.solved.linear;
  linear.scheme = module.scheme;
  linear.out = module.out;
  linear.in = module.in;
  const auto codes = Expect(file_, tensors[0]);
  linear.codes = InPairs(module.scheme)
                     ? CodesOf(codes, module.scheme, static_cast<size_t>(module.out * module.in))
                     : As<int8_t>(codes);
  linear.scales = As<float>(Expect(file_, tensors[1]));
  const std::vector<float> constants = As<float>(Expect(file_, tensors[2]));
  linear.global_scale = constants[0];
  linear.input_scale = constants[1];
  linear.input_zero_point = static_cast<int8_t>(constants[2]);
  if (!module.scheme.symmetric) linear.zero_points = As<int8_t>(Expect(file_, tensors[3]));
  return solution;
}

Savepoints::Savepoints(const fs::path& output, Earlier earlier) : folder_(output, kPurpose) {
  if (earlier != Earlier::kDiscard) blocks_ = FinishedBlocks(path());
  if (earlier == Earlier::kRefuse) RefuseBlocks(path(), blocks_);
  if (blocks_ == 0) folder_.Clear();
}

Savepoints::~Savepoints() {
  if (blocks_ == 0) folder_.Remove();
}

void Savepoints::Begin(const json& identity) {
  if (blocks_ == 0) {
    folder_.PutText(kIdentity, identity.dump(1) + "\n");
    return;
  }
  const json difference = json::diff(ReadJson(path() / kIdentity), identity);
  if (difference.empty()) return;
  const std::string where = difference[0].value("path", "/");
  throw Error(ErrorCode::kUsage, path().string(),
              fmt::format("the finished blocks are of another run: '{}' differs; --force begins "
                          "again",
                          where.substr(1)));
}

SavedBlock Savepoints::Open(size_t block) const {
  Check(block < blocks_, "Savepoints: the block is not finished");
  const fs::path file = path() / NameOf(block, "safetensors");
  const json finished = ReadJson(path() / NameOf(block, "json"));
  if (!finished.contains("record") || finished.value("sha256", "") != HashFile(file)) {
    throw Error(ErrorCode::kBadInput, file.string(),
                "is not what an earlier run wrote; remove the folder and begin again");
  }
  return {SafetensorsFile::Open(file), finished["record"]};
}

void Savepoints::Start(std::span<const SavedLayer> layers) {
  std::vector<TensorDeclaration> tensors;
  for (const SavedLayer& layer : layers) {
    for (TensorDeclaration& tensor : DeclarationsOf(layer)) tensors.push_back(std::move(tensor));
  }
  const fs::path file = path() / NameOf(blocks_, "safetensors");
  std::error_code ignored;
  fs::remove(file, ignored);  // of a block that was not finished
  writer_.emplace(file, std::move(tensors));
}

void Savepoints::Add(const SavedLayer& layer, const LayerSolution& solution) {
  Check(writer_.has_value(), "Savepoints: Start comes first");
  const std::string& name = layer.module.name;
  if (layer.blocks) return writer_->Write(name + ".rows", solution.rows);
  const QuantizedLinear& linear = solution.solved.linear;
  if (InPairs(linear.scheme)) {
    writer_->Write(name + ".codes", PairsOf(linear.codes));
  } else {
    writer_->Write(name + ".codes", std::as_bytes(std::span(linear.codes)));
  }
  writer_->Write(name + ".scales", std::as_bytes(std::span(linear.scales)));
  const std::vector<float> constants = {linear.global_scale, linear.input_scale,
                                        static_cast<float>(linear.input_zero_point)};
  writer_->Write(name + ".constants", std::as_bytes(std::span(constants)));
  if (!linear.scheme.symmetric) {
    writer_->Write(name + ".zero_points", std::as_bytes(std::span(linear.zero_points)));
  }
}

void Savepoints::Finish(const json& record) {
  Check(writer_.has_value(), "Savepoints: Start comes first");
  writer_->Finish();
  writer_.reset();
  const json finished = {{"sha256", HashFile(path() / NameOf(blocks_, "safetensors"))},
                         {"record", record}};
  folder_.PutText(NameOf(blocks_, "json"), finished.dump(1) + "\n");
  folder_.Keep();
  ++blocks_;
}

void Savepoints::Remove() {
  writer_.reset();
  blocks_ = 0;
  folder_.Remove();
}

void CheckNoSavepoints(const fs::path& output) {
  const fs::path folder = KeptFolder::PathOf(output, kPurpose);
  RefuseBlocks(folder, FinishedBlocks(folder));
}

uint64_t SavedBytes(const SavedLayer& layer) {
  uint64_t bytes = 0;
  for (const TensorDeclaration& tensor : DeclarationsOf(layer)) bytes += tensor.bytes();
  return bytes;
}

}  // namespace quantmill
