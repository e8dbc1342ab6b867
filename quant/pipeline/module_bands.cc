#include "quant/pipeline/module_bands.h"

#include <algorithm>
#include <future>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Bytes of one module, packed, that are in memory together, about.
constexpr uint64_t kPackedBytes = uint64_t{32} << 20;

// Rows of a band: a multiple of RowUnit.
int64_t BandRows(const QuantScheme& scheme) {
  // Where eight outputs share a word, 128 fill a cache line: with less, bands would share lines.
  constexpr int64_t kRows = 128;
  const int64_t unit = RowUnit(scheme);
  return (kRows + unit - 1) / unit * unit;
}

// Rows of a module, a multiple of a band's, that take kPackedBytes where all take `bytes`.
int64_t RowsInMemory(const QuantizedModule& module, uint64_t bytes) {
  const int64_t band = BandRows(module.scheme);
  const int64_t bands = (module.out + band - 1) / band;
  const uint64_t bytes_of_band = bytes / static_cast<uint64_t>(bands) + 1;
  return std::max(int64_t{1}, static_cast<int64_t>(kPackedBytes / bytes_of_band)) * band;
}

uint64_t PackedBytes(const RowPacker& packer, const QuantizedModule& module) {
  uint64_t bytes = 0;
  for (const TensorDeclaration& tensor : packer.Declare(module)) bytes += tensor.bytes();
  return bytes;
}

}  // namespace

ModuleBands::ModuleBands(const ArtifactReader& reader, const Checkpoint& checkpoint,
                         ThreadPool& pool)
    : reader_(reader),
      checkpoint_(checkpoint),
      pool_(pool),
      bands_(static_cast<size_t>(pool.threads())) {
  for (const std::string& name : reader_.modules()) {
    modules_.push_back(reader_.Describe(name));
    ReleaseModule(name);
  }
}

void ModuleBands::ReleaseModule(const std::string& name) const {
  for (const std::string& tensor : reader_.TensorsOf(name)) checkpoint_.Release(tensor);
}

void ModuleBands::Read(const ArtifactReader& reader, const QuantizedModule& module, RowRange range,
                       Codes codes, RowBand& band) {
  if (codes == Codes::kWords) return reader.ReadWords(module, range, band);
  band.words = {};
  reader.ReadRows(module, range, band.rows);
}

ModuleBands::Codes ModuleBands::CodesBetween(size_t index, const QuantizedModule& other,
                                             bool other_has_words) const {
  const QuantizedModule& own = modules_[index];
  const bool same = other_has_words && reader_.HasWords(own) &&
                    own.scheme.bits == other.scheme.bits &&
                    own.scheme.symmetric == other.scheme.symmetric;
  return same ? Codes::kWords : Codes::kBytes;
}

void ModuleBands::ForEachOf(size_t index, RowRange rows, Codes codes, const Visit& visit) {
  const QuantizedModule& module = modules_[index];
  const int64_t band = BandRows(module.scheme);
  const int64_t bands = (rows.count() + band - 1) / band;
  pool_.ParallelFor(bands, [&](int64_t task, int thread) {
    const int64_t first = rows.begin + task * band;
    RowBand& read = bands_[static_cast<size_t>(thread)];
    Read(reader_, module, {first, std::min(rows.end, first + band)}, codes, read);
    visit(first, read, thread);
  });
  ReleaseModule(module.name);
}

void ModuleBands::ForEach(size_t index, Codes codes, const Visit& visit,
                          const std::function<void()>& release) {
  const QuantizedModule& module = modules_[index];
  const auto bits = static_cast<uint64_t>(module.out * module.in * module.scheme.bits);
  const int64_t step = RowsInMemory(module, bits / 8);
  for (int64_t row = 0; row < module.out; row += step) {
    ForEachOf(index, {row, std::min(module.out, row + step)}, codes, visit);
    release();
  }
}

void ModuleBands::Repack(const RowPacker& packer, std::span<const QuantizedModule> targets,
                         const Rewrite& rewrite, const std::function<void(size_t)>& begin,
                         CheckpointWriter& writer) {
  Check(targets.size() == modules_.size(), "Repack: a target for each module");
  PackedRows packed;
  PackedRows written;
  for (size_t index = 0; index < modules_.size(); ++index) {
    begin(index);
    const QuantizedModule& target = targets[index];
    const Codes codes = CodesBetween(index, target, packer.HasWords(target));
    const int64_t step = RowsInMemory(target, PackedBytes(packer, target));
    for (int64_t row = 0; row < target.out; row += step) {
      const RowRange rows = {row, std::min(target.out, row + step)};
      packed.Begin(packer, target, rows);
      std::future<void> writing = std::async(std::launch::async, [&] { written.WriteTo(writer); });
      ForEachOf(index, rows, codes, [&](int64_t first, RowBand& band, int) {
        rewrite(index, first, band.rows);
        packed.Pack(first, band);
      });
      writing.get();
      std::swap(packed, written);
    }
  }
  written.WriteTo(writer);
}

}  // namespace quantmill
