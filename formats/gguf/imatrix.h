// Importance matrices of llama.cpp: for each weight tensor, how large the inputs are that its
// columns meet. Two file formats hold the same numbers (formats.md section 7.7).
#ifndef QUANTMILL_FORMATS_GGUF_IMATRIX_H_
#define QUANTMILL_FORMATS_GGUF_IMATRIX_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace quantmill {

// Of one weight tensor; several matrices (experts) lie in one.
struct ImportanceEntry {
  std::vector<float> sums;    // [matrices, cols]: sum over inputs of x^2
  std::vector<float> counts;  // [matrices]: inputs seen, 0 or more; one for each matrix

  friend bool operator==(const ImportanceEntry&, const ImportanceEntry&) = default;

  size_t matrices() const { return counts.size(); }
  size_t cols() const { return counts.empty() ? 0 : sums.size() / counts.size(); }
  // [matrices, cols]: sums / counts, 1 where a matrix has seen no input, as llama.cpp has it.
  std::vector<float> Means() const;
};

struct ImportanceMatrix {
  std::map<std::string, ImportanceEntry, std::less<>> entries;  // "blk.0.attn_q.weight" -> ...
  std::vector<std::string> datasets;
  uint32_t chunk_count = 0;
  uint32_t chunk_size = 0;  // tokens; the older format has no place for it

  friend bool operator==(const ImportanceMatrix&, const ImportanceMatrix&) = default;
};

// Reads either format, told apart by the first bytes and never by the name: files of the newer one
// are often called .dat. Throws Error(kBadInput) naming file, entry and byte offset; values must be
// finite and not negative. The older format has one count for all matrices of an entry.
ImportanceMatrix ReadImportanceMatrix(const std::filesystem::path& path);

// The GGUF form, to the new file `path` (not yet there, synced; publish it through OutputFolder).
// Equal matrices give equal bytes. Throws Error(kEnvironment) from the disk, Error(kBadInput) for a
// name too long for a tensor; Check fails for sums that do not fill the matrices.
void WriteImportanceMatrix(const std::filesystem::path& path, const ImportanceMatrix& matrix);

// The older form, which programs before August 2025 read: means times one count. An entry of
// several matrices has the mean of their counts there; datasets are joined by spaces.
void WriteLegacyImportanceMatrix(const std::filesystem::path& path, const ImportanceMatrix& matrix);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_IMATRIX_H_
