#include "formats/checkpoint.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>

#include "formats/folder_image.h"
#include "formats/json.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConfigName = "config.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexName = "model.safetensors.index.json";

[[noreturn]] void ThrowBad(const fs::path& where, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where.string(), what);
}

bool IsFile(const fs::path& path) {
  std::error_code error;
  const bool is_file = fs::is_regular_file(path, error);
  if (error == std::errc::permission_denied) ThrowBad(path, "cannot be read: permission denied");
  return is_file;
}

// The model's folder, from what the user gave.
fs::path ResolveFolder(const std::string& model) {
  if (model.empty()) ThrowBad("model", "is empty: give a folder or a hub id such as org/name");
  std::error_code error;
  const fs::path path(model);
  if (fs::is_directory(path, error)) return fs::absolute(path).lexically_normal();
  if (fs::exists(path, error)) {
    if (path.extension() == ".safetensors") {
      ThrowBad(path, "is one weight file; give the folder that holds it and its config.json");
    }
    ThrowBad(path, "is no model folder");
  }
  if (std::optional<fs::path> cached = FindInHubCache(model)) return *cached;
  std::string what = "no such folder";
  if (IsHubId(model)) {
    what += ", and no model of this name in the Hugging Face cache " + HubCacheFolder().string() +
            ": check the path, or download it first (hf download " + model + ")";
  }
  ThrowBad(path, what);
}

// Shard -> the names that the index promises in it.
using WeightMap = std::map<std::string, std::set<std::string>>;

WeightMap ReadIndex(const fs::path& index_path) {
  const nlohmann::json index = ReadJsonFile(index_path);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object()) ThrowBad(index_path, "has no object weight_map");
  WeightMap shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) ThrowBad(index_path, "tensor '" + tensor + "': its shard is no string");
    const auto name = file.get<std::string>();
    // A folder from elsewhere must not make us read files outside it.
    const fs::path normal = fs::path(name).lexically_normal();
    if (name.empty() || normal.is_absolute() || *normal.begin() == ".." ||
        normal.extension() != ".safetensors") {
      ThrowBad(index_path, "tensor '" + tensor + "': shard '" + name +
                               "' is no .safetensors file inside the model folder");
    }
    shards[name].insert(tensor);
  }
  if (shards.empty()) ThrowBad(index_path, "its weight_map is empty");
  return shards;
}

// The files of a folder without an index: model.safetensors, or the only other one.
fs::path FindSingleFile(const fs::path& folder) {
  if (IsFile(folder / kSingleName)) return folder / kSingleName;
  std::vector<fs::path> found;
  std::error_code error;
  bool other_weights = false;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".safetensors") found.push_back(entry.path());
    other_weights |= extension == ".bin" || extension == ".pt" || extension == ".pth";
  }
  if (found.size() == 1) return found[0];
  if (found.size() > 1) {
    ThrowBad(folder, "holds " + std::to_string(found.size()) + " .safetensors files but no " +
                         std::string(kIndexName) + " that names their tensors");
  }
  ThrowBad(folder, other_weights ? "holds weights as PyTorch pickles only; convert them to "
                                   "safetensors first (model.save_pretrained does)"
                                 : "holds no .safetensors file");
}

void CheckAgainstIndex(const SafetensorsFile& shard, const std::set<std::string>& promised,
                       const fs::path& index_path) {
  for (const std::string& name : promised) {
    if (shard.Find(name) == nullptr) {
      ThrowBad(index_path, "tensor '" + name + "' is not in its shard " +
                               shard.file().path().filename().string() +
                               ": the download may be incomplete");
    }
  }
  for (const TensorInfo& info : shard.tensors()) {
    if (!promised.contains(info.name)) {
      ThrowBad(shard.file().path(), "tensor '" + info.name +
                                        "' is in this shard, but the index does not say so: "
                                        "the folder may mix two models");
    }
  }
}

int64_t RowsOf(const TensorInfo& info) {
  return info.shape.size() < 2 ? 1 : info.elements() / info.shape.back();
}

// Where a folder of GGUF files was given instead of one of them.
std::string GgufHint(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".gguf") continue;
    return "; to read " + entry.path().filename().string() + " in it, give that file";
  }
  return "";
}

// Why an output does not take over this entry of a model folder, or "".
std::string ReasonToSkip(const fs::directory_entry& entry) {
  static const std::set<std::string> kText = {".json", ".jinja", ".model",    ".txt",
                                              ".md",   ".py",    ".tiktoken", ""};
  static const std::set<std::string> kWeights = {".safetensors", ".bin",     ".pt",   ".pth",
                                                 ".h5",          ".msgpack", ".onnx", ".gguf",
                                                 ".ot",          ".npz",     ".ckpt"};
  static const std::set<std::string> kQuantization = {"quantize_config.json", "quant_config.json",
                                                      "hf_quant_config.json"};
  std::error_code error;
  const std::string name = entry.path().filename().string();
  const std::string extension = entry.path().extension().string();
  if (entry.is_directory(error)) return "a subfolder";
  if (!entry.exists(error)) return "a link to nothing";
  if (!entry.is_regular_file(error)) return "no regular file";
  if (name.starts_with('.')) return "a hidden file";
  if (kWeights.contains(extension)) return "weights in another format or of another model";
  if (name.ends_with(".index.json")) return "an index of other weights";
  if (kQuantization.contains(name)) return "describes how the source was quantized";
  if (name == "manifest.json") return "describes how the source was made";
  if (!kText.contains(extension)) return "of an unknown kind";
  return "";
}

}  // namespace

struct Checkpoint::State {
  struct Place {
    const SafetensorsFile* file;  // null: the tensor is index `index` of the image
    const TensorInfo* info;
    size_t index = 0;
  };

  fs::path folder;
  nlohmann::json config;
  std::vector<SafetensorsFile> files;
  std::vector<fs::path> paths;
  std::vector<std::string> names;
  std::map<std::string, Place, std::less<>> places;
  uint64_t total_bytes = 0;
  std::optional<FolderImage> image;
  // Of tensors whose bytes in the file are not aligned to their element, and of computed ones.
  std::mutex copies_mutex;
  std::map<const TensorInfo*, Tensor> copies;

  void OpenShards();
  void CollectTensors();
  std::span<const std::byte> Bytes(const Place& place);
  // Computes or copies once; the same memory until Release.
  std::span<const std::byte> Kept(const Place& place);
  const Place& Find(std::string_view name) const {
    const auto found = places.find(name);
    if (found == places.end()) ThrowBad(folder, "has no tensor '" + std::string(name) + "'");
    return found->second;
  }
};

void Checkpoint::State::OpenShards() {
  const fs::path index_path = folder / kIndexName;
  if (!IsFile(index_path)) {
    paths.push_back(FindSingleFile(folder));
    files.push_back(SafetensorsFile::Open(paths.back()));
    CollectTensors();
    return;
  }
  const WeightMap shards = ReadIndex(index_path);
  if (IsFile(folder / kSingleName) && !shards.contains(std::string(kSingleName))) {
    ThrowBad(index_path, "is stale, or " + std::string(kSingleName) +
                             " beside it is: loaders disagree on which one counts; remove one");
  }
  for (const auto& [name, promised] : shards) {
    paths.push_back(folder / name);
    if (!IsFile(paths.back())) {
      ThrowBad(index_path, "shard " + name + " is missing: the download may be incomplete");
    }
    files.push_back(SafetensorsFile::Open(paths.back()));
  }
  CollectTensors();  // before the index: that a tensor is in two shards is the clearer message
  size_t i = 0;
  for (const auto& [name, promised] : shards) CheckAgainstIndex(files[i++], promised, index_path);
}

void Checkpoint::State::CollectTensors() {
  for (size_t i = 0; i < files.size(); ++i) {
    for (const TensorInfo& info : files[i].tensors()) {
      const auto [place, inserted] = places.emplace(info.name, Place{&files[i], &info, 0});
      if (!inserted) {
        ThrowBad(paths[i], "tensor '" + info.name + "' is also in " +
                               place->second.file->file().path().filename().string());
      }
      total_bytes += info.bytes();
    }
  }
  for (const auto& [name, place] : places) names.push_back(name);
}

std::span<const std::byte> Checkpoint::State::Kept(const Place& place) {
  const TensorInfo& info = *place.info;
  const auto bytes_of = [&](const Tensor& tensor) {
    return std::span(static_cast<const std::byte*>(tensor.view().data), info.bytes());
  };
  {
    const std::lock_guard lock(copies_mutex);
    if (const auto found = copies.find(&info); found != copies.end())
      return bytes_of(found->second);
  }
  // Outside of the lock: others may compute other tensors meanwhile.
  Tensor copy = HostTensor(*info.type(), 1, info.elements());
  const std::span<std::byte> to(static_cast<std::byte*>(copy.view().data), info.bytes());
  if (place.file == nullptr) {
    image->tensors->ReadRows(place.index, 0, RowsOf(info), to);
    image->tensors->Release(place.index);
  } else {
    std::ranges::copy(place.file->Bytes(info), to.begin());
  }
  const std::lock_guard lock(copies_mutex);
  return bytes_of(copies.try_emplace(&info, std::move(copy)).first->second);
}

std::span<const std::byte> Checkpoint::State::Bytes(const Place& place) {
  if (place.info->bytes() == 0) return {};
  return place.file == nullptr ? Kept(place) : place.file->Bytes(*place.info);
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Checkpoint Checkpoint::Open(const std::string& model) {
  auto state = std::make_unique<State>();
  state->folder = ResolveFolder(model);
  const fs::path config_path = state->folder / kConfigName;
  if (!IsFile(config_path)) {
    ThrowBad(state->folder,
             "holds no config.json: it is no model folder" + GgufHint(state->folder));
  }
  state->config = ReadJsonFile(config_path);
  if (!state->config.is_object()) ThrowBad(config_path, "is no JSON object");
  state->OpenShards();
  return Checkpoint(std::move(state));
}

Checkpoint Checkpoint::OfImage(FolderImage image) {
  auto state = std::make_unique<State>();
  state->folder = std::filesystem::absolute(image.path).lexically_normal();
  state->config = image.config;
  state->paths = image.weight_files;
  const std::vector<TensorInfo>& tensors = image.tensors->tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = tensors[i];
    Check(state->places.emplace(info.name, State::Place{nullptr, &info, i}).second,
          "an image has two tensors of one name");
    state->total_bytes += image.tensors->Stored(i).bytes;
  }
  for (const auto& [name, place] : state->places) state->names.push_back(name);
  state->image = std::move(image);
  return Checkpoint(std::move(state));
}

const nlohmann::json& Checkpoint::config() const { return state_->config; }
const fs::path& Checkpoint::folder() const { return state_->folder; }
const std::vector<std::string>& Checkpoint::names() const { return state_->names; }
const std::vector<fs::path>& Checkpoint::weight_files() const { return state_->paths; }
uint64_t Checkpoint::total_bytes() const { return state_->total_bytes; }
bool Checkpoint::is_image() const { return state_->image.has_value(); }
bool Checkpoint::Has(std::string_view name) const { return state_->places.contains(name); }

const TensorInfo& Checkpoint::Info(std::string_view name) const { return *state_->Find(name).info; }

std::span<const std::byte> Checkpoint::Bytes(std::string_view name) const {
  return state_->Bytes(state_->Find(name));
}

void Checkpoint::ForEachPiece(std::string_view name, const VisitPiece& visit) const {
  const State::Place& place = state_->Find(name);
  const TensorInfo& info = *place.info;
  if (info.bytes() == 0) return;
  if (place.file != nullptr) {
    const std::span<const std::byte> bytes = place.file->Bytes(info);
    for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
      visit(at, bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at)));
      Release(name);
    }
    return;
  }
  const int64_t rows = RowsOf(info);
  const size_t row_bytes = info.bytes() / static_cast<size_t>(rows);
  const auto batch = static_cast<int64_t>(std::max<size_t>(1, kPieceBytes / row_bytes));
  std::vector<std::byte> piece;
  for (int64_t row = 0; row < rows; row += batch) {
    const int64_t count = std::min(batch, rows - row);
    piece.resize(static_cast<size_t>(count) * row_bytes);
    state_->image->tensors->ReadRows(place.index, row, count, piece);
    visit(static_cast<uint64_t>(row) * row_bytes, piece);
  }
  state_->image->tensors->Release(place.index);
}

StoredTensor Checkpoint::Stored(std::string_view name) const {
  const State::Place& place = state_->Find(name);
  if (place.file == nullptr) return state_->image->tensors->Stored(place.index);
  return {place.info->dtype, place.info->bytes()};
}

ConstMatrix Checkpoint::View(std::string_view name) const {
  const State::Place& place = state_->Find(name);
  const TensorInfo& info = *place.info;
  const std::optional<DType> dtype = info.type();
  if (!dtype || !IsDenseFloat(*dtype)) {
    throw Error(ErrorCode::kBadInput, Location(name),
                "is " + info.dtype + "; a dense weight must be F32, F16 or BF16");
  }
  if (info.shape.empty() || info.shape.size() > 2) {
    throw Error(ErrorCode::kBadInput, Location(name),
                "has shape " + ShapeString(info.shape) + "; one or two dimensions are expected");
  }
  const int64_t rows = info.shape.size() == 2 ? info.shape[0] : 1;
  const int64_t cols = info.shape.back();
  std::span<const std::byte> bytes = state_->Bytes(place);
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  if (address % static_cast<uintptr_t>(SizeOf(*dtype)) != 0) bytes = state_->Kept(place);
  return {bytes.data(), *dtype, rows, cols, cols};
}

std::string Checkpoint::Location(std::string_view name) const {
  const State::Place& place = state_->Find(name);
  if (place.file == nullptr) return state_->image->tensors->Location(place.index);
  return place.file->file().path().string() + ": tensor '" + std::string(name) + "' (byte offset " +
         std::to_string(place.file->FileOffset(*place.info)) + ")";
}

void Checkpoint::Release(std::string_view name) const {
  const State::Place& place = state_->Find(name);
  if (place.file == nullptr) {
    state_->image->tensors->Release(place.index);
  } else {
    place.file->file().Release(place.file->FileOffset(*place.info), place.info->bytes());
  }
  const std::lock_guard lock(state_->copies_mutex);
  state_->copies.erase(place.info);
}

SideFiles Checkpoint::other_files() const {
  SideFiles result;
  if (state_->image) {
    for (const auto& [name, content] : state_->image->files) result.copied.push_back(name);
    for (const auto& [name, why] : state_->image->missing) {
      result.skipped.push_back(name + ": " + why.what());
    }
    return result;
  }
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(state_->folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name == kConfigName || name == kIndexName) continue;
    if (std::find(state_->paths.begin(), state_->paths.end(), entry.path()) !=
        state_->paths.end()) {
      continue;
    }
    const std::string reason = ReasonToSkip(entry);
    if (reason.empty()) {
      result.copied.push_back(name);
    } else {
      result.skipped.push_back(name + ": " + reason);
    }
  }
  if (error) ThrowBad(state_->folder, "cannot list: " + error.message());
  std::sort(result.copied.begin(), result.copied.end());
  std::sort(result.skipped.begin(), result.skipped.end());
  return result;
}

bool Checkpoint::HasFile(const std::string& name) const {
  if (state_->image) return state_->image->files.contains(name);
  std::error_code error;
  return fs::exists(state_->folder / name, error);
}

std::optional<std::string> Checkpoint::ReadFile(const std::string& name) const {
  if (state_->image) {
    const FolderImage& image = *state_->image;
    if (const auto why = image.missing.find(name); why != image.missing.end()) throw why->second;
    const auto found = image.files.find(name);
    return found == image.files.end() ? std::nullopt : std::optional(found->second);
  }
  if (!HasFile(name)) return std::nullopt;
  return ReadTextFile(state_->folder / name, kMaxJsonBytes);
}

void Checkpoint::ReadRows(std::string_view name, int64_t row, int64_t count,
                          std::span<std::byte> to) const {
  const State::Place& place = state_->Find(name);
  if (place.file == nullptr) return state_->image->tensors->ReadRows(place.index, row, count, to);
  const auto begin = static_cast<size_t>(row) * to.size() / static_cast<size_t>(count);
  std::ranges::copy(place.file->Bytes(*place.info).subspan(begin, to.size()), to.begin());
}

std::string Checkpoint::PathOf(const std::string& name) const {
  if (state_->image) return state_->folder.string() + " as " + name;
  return (state_->folder / name).string();
}

}  // namespace quantmill
