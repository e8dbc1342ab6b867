#include "formats/gguf/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "formats/file.h"
#include "formats/gguf.h"
#include "formats/gguf/cursor.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";
constexpr std::string_view kDatasets = "imatrix.datasets";
constexpr std::string_view kChunkCount = "imatrix.chunk_count";
constexpr std::string_view kChunkSize = "imatrix.chunk_size";

// Finite and not negative, or throws.
void CheckValues(const std::vector<float>& values, const std::string& name,
                 const std::string& path) {
  const auto bad = std::find_if(values.begin(), values.end(),
                                [](float value) { return !std::isfinite(value) || value < 0; });
  if (bad == values.end()) return;
  throw Error(ErrorCode::kBadInput, path,
              "'" + name + "': value " + std::to_string(bad - values.begin()) + " is " +
                  std::to_string(*bad) +
                  "; sums of squares and counts are finite and not negative");
}

// --- the older format ---------------------------------------------------------------------------

// An i32 of 0 or more.
uint32_t ParseCount(Cursor& cursor, const std::string& what) {
  const uint64_t at = cursor.offset();
  const auto count = cursor.Number<int32_t>(what);
  if (count < 0) cursor.FailAt(at, what + " is " + std::to_string(count));
  return static_cast<uint32_t>(count);
}

std::string ParseLegacyText(Cursor& cursor, const std::string& what) {
  const uint32_t size = ParseCount(cursor, "the length of " + what);
  cursor.RequireCount(size, 1, what);
  std::string text(size, '\0');
  for (char& c : text) c = cursor.Number<char>(what);
  return text;
}

ImportanceEntry ParseLegacyEntry(Cursor& cursor, const std::string& name, const std::string& path) {
  const std::string what = "'" + name + "'";
  const uint32_t calls = ParseCount(cursor, what + ": the number of calls");
  const uint64_t at = cursor.offset();
  const uint32_t count = ParseCount(cursor, what + ": the number of values");
  if (count == 0) cursor.FailAt(at, what + " has no values");
  cursor.RequireCount(count, sizeof(float), what + ": values");
  ImportanceEntry entry;
  for (uint32_t i = 0; i < count; ++i) entry.sums.push_back(cursor.Number<float>(what));
  CheckValues(entry.sums, name, path);
  // Without calls the values are the means themselves.
  entry.counts = {static_cast<float>(std::max(calls, 1u))};
  return entry;
}

ImportanceMatrix ParseLegacy(std::span<const std::byte> bytes, const std::string& path) {
  constexpr uint64_t kSmallestEntry = 4 + 1 + 4 + 4 + 4;
  Cursor cursor(bytes, path);
  const uint32_t count = ParseCount(cursor, "the number of entries");
  if (count == 0) cursor.FailAt(0, "has no entries: no importance matrix");
  cursor.RequireCount(count, kSmallestEntry, "entries");
  ImportanceMatrix matrix;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t at = cursor.offset();
    const std::string name = ParseLegacyText(cursor, "an entry's name");
    if (name.empty() || FindInvalidUtf8(name)) {
      cursor.FailAt(at, "an entry's name is empty or not valid UTF-8: no importance matrix");
    }
    if (!matrix.entries.emplace(name, ParseLegacyEntry(cursor, name, path)).second) {
      cursor.FailAt(at, "'" + name + "' occurs twice");
    }
  }
  if (cursor.left() == 0) return matrix;  // the oldest files end here
  matrix.chunk_count = ParseCount(cursor, "the number of chunks");
  matrix.datasets = {ParseLegacyText(cursor, "the dataset's path")};
  if (cursor.left() > 0) {
    cursor.Fail(std::to_string(cursor.left()) + " bytes follow the dataset's path");
  }
  return matrix;
}

template <typename T>
void Append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void AppendText(std::string& out, const std::string& text) {
  Append(out, static_cast<int32_t>(text.size()));
  out += text;
}

// --- GGUF ---------------------------------------------------------------------------------------

// The numbers of an F32 tensor.
std::vector<float> Floats(const GgufFile& file, const GgufTensor& tensor) {
  if (tensor.type != GgmlType::kF32) {
    throw Error(ErrorCode::kBadInput, file.file().path().string(),
                "tensor '" + tensor.name + "' is of type " + std::string(NameOf(tensor.type)) +
                    "; importance matrices are F32");
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  if (!values.empty()) std::memcpy(values.data(), file.Bytes(tensor).data(), tensor.bytes);
  CheckValues(values, tensor.name, file.file().path().string());
  return values;
}

std::string Without(std::string_view name, std::string_view suffix) {
  return std::string(name.substr(0, name.size() - suffix.size()));
}

ImportanceMatrix ReadGguf(const std::filesystem::path& path) {
  const GgufFile file = GgufFile::Open(path);
  const GgufMetadata& metadata = file.metadata();
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kBadInput, path.string(), what);
  };
  const std::string* type = metadata.Text("general.type");
  if (type == nullptr || *type != "imatrix") {
    fail("a GGUF file of type '" + (type == nullptr ? "model" : *type) +
         "', no importance matrix: general.type would be 'imatrix'");
  }
  ImportanceMatrix matrix;
  if (const auto* datasets = metadata.Array<std::string>(kDatasets)) matrix.datasets = *datasets;
  matrix.chunk_count = static_cast<uint32_t>(metadata.Unsigned(kChunkCount).value_or(0));
  matrix.chunk_size = static_cast<uint32_t>(metadata.Unsigned(kChunkSize).value_or(0));
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.ends_with(kSums)) {
      const std::string name = Without(tensor.name, kSums);
      const GgufTensor* counts = file.Find(name + std::string(kCounts));
      if (counts == nullptr) fail("tensor '" + tensor.name + "' has no counts beside it");
      ImportanceEntry entry{Floats(file, tensor), Floats(file, *counts)};
      if (entry.counts.empty() || tensor.elements() == 0 ||
          static_cast<uint64_t>(tensor.elements()) !=
              static_cast<uint64_t>(tensor.cols()) * entry.counts.size()) {
        fail("tensor '" + tensor.name + "': " + std::to_string(tensor.elements()) +
             " sums in rows of " + std::to_string(tensor.cols()) + " do not go with " +
             std::to_string(entry.counts.size()) + " counts");
      }
      matrix.entries.emplace(name, std::move(entry));
    } else if (!tensor.name.ends_with(kCounts) ||
               file.Find(Without(tensor.name, kCounts) + std::string(kSums)) == nullptr) {
      fail("tensor '" + tensor.name + "' belongs to no entry of an importance matrix");
    }
  }
  if (matrix.entries.empty()) fail("has no entries");
  return matrix;
}

void CheckEntry(const ImportanceEntry& entry) {
  Check(
      !entry.counts.empty() && !entry.sums.empty() && entry.sums.size() % entry.counts.size() == 0,
      "the sums of an importance entry do not fill its matrices");
}

std::span<const std::byte> BytesOfFloats(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

std::vector<float> ImportanceEntry::Means() const {
  CheckEntry(*this);
  std::vector<float> means(sums.size(), 1.0f);
  const size_t size = cols();
  for (size_t m = 0; m < counts.size(); ++m) {
    if (counts[m] <= 0) continue;
    for (size_t i = m * size; i < (m + 1) * size; ++i) means[i] = sums[i] / counts[m];
  }
  return means;
}

ImportanceMatrix ReadImportanceMatrix(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::Open(path);
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return ReadGguf(path);
  return ParseLegacy(bytes, path.string());
}

void WriteImportanceMatrix(const std::filesystem::path& path, const ImportanceMatrix& matrix) {
  std::vector<GgufEntry> metadata = {{"general.type", std::string("imatrix")}};
  // An array without elements is refused by some readers.
  if (!matrix.datasets.empty()) {
    metadata.push_back({std::string(kDatasets), GgufArray(matrix.datasets)});
  }
  metadata.push_back({std::string(kChunkCount), matrix.chunk_count});
  metadata.push_back({std::string(kChunkSize), matrix.chunk_size});
  std::vector<GgufDeclaration> tensors;
  for (const auto& [name, entry] : matrix.entries) {
    CheckEntry(entry);
    const auto matrices = static_cast<int64_t>(entry.matrices());
    const auto cols = static_cast<int64_t>(entry.cols());
    // ggml leaves out sizes of 1 at the outer end.
    const bool single = matrices == 1;
    tensors.push_back({name + std::string(kSums), GgmlType::kF32,
                       single ? std::vector{cols} : std::vector{matrices, cols}});
    tensors.push_back({name + std::string(kCounts), GgmlType::kF32,
                       single ? std::vector<int64_t>{1} : std::vector<int64_t>{matrices, 1}});
  }
  GgufWriter writer(path, metadata, tensors);
  for (const auto& [name, entry] : matrix.entries) {
    writer.Write(name + std::string(kSums), BytesOfFloats(entry.sums));
    writer.Write(name + std::string(kCounts), BytesOfFloats(entry.counts));
  }
  writer.Finish();
}

void WriteLegacyImportanceMatrix(const std::filesystem::path& path,
                                 const ImportanceMatrix& matrix) {
  std::string out;
  Append(out, static_cast<int32_t>(matrix.entries.size()));
  for (const auto& [name, entry] : matrix.entries) {
    CheckEntry(entry);
    double calls = 0;
    for (const float count : entry.counts) calls += count / static_cast<double>(entry.matrices());
    const auto rounded = static_cast<int32_t>(std::clamp(std::round(calls), 1.0, 1e9));
    AppendText(out, name);
    Append(out, rounded);
    Append(out, static_cast<int32_t>(entry.sums.size()));
    for (const float mean : entry.Means()) Append(out, mean * static_cast<float>(rounded));
  }
  std::string datasets;
  for (const std::string& dataset : matrix.datasets) {
    datasets += (datasets.empty() ? "" : " ") + dataset;
  }
  Append(out, static_cast<int32_t>(std::min<uint32_t>(matrix.chunk_count, INT32_MAX)));
  AppendText(out, datasets);
  WriteTextFile(path, out);
}

}  // namespace quantmill
