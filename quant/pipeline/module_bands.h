// The quantized modules of an artifact, read by bands of rows that stay in the cache.
#ifndef QUANTMILL_QUANT_PIPELINE_MODULE_BANDS_H_
#define QUANTMILL_QUANT_PIPELINE_MODULE_BANDS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "formats/artifact.h"
#include "kernels/core/thread_pool.h"

namespace quantmill {

// Modules are visited in order, bands of one by all threads at once. Memory is a few bands for each
// thread and a few tens of MB of packed rows and mapped pages, whatever the size of a module.
// `reader`, its checkpoint and `pool` must outlive it.
class ModuleBands {
 public:
  ModuleBands(const ArtifactReader& reader, const Checkpoint& checkpoint, ThreadPool& pool);

  const std::vector<QuantizedModule>& modules() const { return modules_; }

  // How a band holds its codes: each in a byte, or (ArtifactReader::HasWords) in words.
  enum class Codes : uint8_t { kBytes, kWords };
  // kWords where modules()[index] and what stands for it at the other end, `other`, have the same
  // words. other_has_words: HasWords of the format or file there.
  Codes CodesBetween(size_t index, const QuantizedModule& other, bool other_has_words) const;
  // ReadRows or ReadWords.
  static void Read(const ArtifactReader& reader, const QuantizedModule& module, RowRange range,
                   Codes codes, RowBand& band);

  // Rows [first, first + band.rows.out) of a module. The visitor may change them.
  using Visit = std::function<void(int64_t first, RowBand& band, int thread)>;
  // All bands of modules()[index]. Now and then, and at the end, calls `release` while no thread
  // visits: mapped pages of what the visitor reads besides must be given back.
  void ForEach(
      size_t index, Codes codes, const Visit& visit, const std::function<void()>& release = [] {});

  // Of a band without codes where these stay in words: both schemes then have zero points, or none.
  using Rewrite = std::function<void(size_t index, int64_t first, QuantizedLinear& band)>;
  // Every module, as `targets` describes it and after `rewrite`, into `writer`, which has the
  // tensors that `packer` declares for them. Before each, `begin` is told its index. What is packed
  // is written by a thread of its own while the next rows are packed: it waits for the disk, which
  // must not keep a thread of the pool.
  void Repack(const RowPacker& packer, std::span<const QuantizedModule> targets,
              const Rewrite& rewrite, const std::function<void(size_t index)>& begin,
              CheckpointWriter& writer);

 private:
  // Calls visit for the bands of `rows`.
  void ForEachOf(size_t index, RowRange rows, Codes codes, const Visit& visit);
  void ReleaseModule(const std::string& name) const;

  const ArtifactReader& reader_;
  const Checkpoint& checkpoint_;
  ThreadPool& pool_;
  std::vector<QuantizedModule> modules_;
  std::vector<RowBand> bands_;  // of each thread; the memory serves all modules
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_MODULE_BANDS_H_
