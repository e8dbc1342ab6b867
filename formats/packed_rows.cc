#include "formats/packed_rows.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr size_t kAlignment = 64;  // of tensors in the memory: a cache line

// Where rows lie in one tensor of a module. Bytes.
struct Slice {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // of each run
  uint64_t stride = 0;
  int64_t runs = 0;
};

// In the tensors that `packer` declares for `module`.
std::vector<Slice> SlicesOf(const RowPacker& packer, const QuantizedModule& module, RowRange rows) {
  const auto declare = [&](int64_t out) {
    QuantizedModule part = module;
    part.out = out;
    return packer.Declare(part);
  };
  const std::vector<TensorDeclaration> whole = packer.Declare(module);
  const std::vector<TensorDeclaration> none = declare(0);
  const std::vector<TensorDeclaration> before = declare(rows.begin);
  const std::vector<TensorDeclaration> own = declare(rows.count());
  std::vector<Slice> slices;
  for (size_t t = 0; t < whole.size(); ++t) {
    const std::vector<int64_t>& shape = whole[t].shape;
    const auto differs = std::ranges::mismatch(shape, none[t].shape).in1;
    if (differs == shape.end()) {  // it knows no rows: the first bring it
      slices.push_back({0, whole[t].bytes(), whole[t].bytes(), rows.begin == 0 ? 1 : 0});
      continue;
    }
    const auto axis = static_cast<size_t>(differs - shape.begin());
    const int64_t runs = std::accumulate(shape.begin(), differs, int64_t{1}, std::multiplies<>());
    const uint64_t stride = whole[t].bytes() / static_cast<uint64_t>(runs);
    const uint64_t unit = stride / static_cast<uint64_t>(shape[axis]);
    slices.push_back({static_cast<uint64_t>(before[t].shape[axis]) * unit,
                      static_cast<uint64_t>(own[t].shape[axis]) * unit, stride, runs});
  }
  return slices;
}

}  // namespace

int64_t RowUnit(const QuantScheme& scheme) {
  constexpr int64_t kRowsOfWords = 32;  // fill whole words with fields of any number of bits
  const int64_t block = scheme.row_block == QuantScheme::kAllRows ? 1 : scheme.row_block;
  return std::lcm(kRowsOfWords, block);
}

void Fill(const TensorRows& to, std::span<const std::byte> bytes) {
  if (to.lines == 0) return;
  Check(bytes.size() == static_cast<size_t>(to.lines) * to.line_bytes,
        "rows were packed to another size than declared");
  for (int64_t line = 0; line < to.lines; ++line) {
    const auto at = static_cast<size_t>(line);
    std::memcpy(to.data + at * to.stride, bytes.data() + at * to.line_bytes, to.line_bytes);
  }
}

void RowPacker::PackWords(const QuantizedModule&, int64_t, const RowBand&,
                          std::span<const TensorRows>) const {
  Check(false, "PackWords: the format has no words");
}

void PackedRows::Begin(const RowPacker& packer, const QuantizedModule& module, RowRange rows) {
  packer_ = &packer;
  module_ = module;
  rows_ = rows;
  parts_.clear();
  const std::vector<TensorDeclaration> tensors = packer.Declare(module);
  const std::vector<Slice> slices = SlicesOf(packer, module, rows);
  size_t size = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const Slice& slice = slices[t];
    parts_.push_back({tensors[t].name,
                      {nullptr, slice.runs, slice.bytes, slice.bytes},
                      slice.offset,
                      slice.stride});
    size += static_cast<size_t>(slice.runs) * slice.bytes + kAlignment;
  }
  // Never smaller: growing again would clear memory that is to be overwritten.
  if (memory_.size() < size) memory_ = std::vector<std::byte>(size);
  std::byte* at = memory_.data();
  for (Part& part : parts_) {
    part.place.data = at;
    const size_t bytes = static_cast<size_t>(part.place.lines) * part.place.line_bytes;
    at += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
}

std::vector<TensorRows> PackedRows::PlacesOf(int64_t first, int64_t out) const {
  const RowRange rows = {first - rows_.begin, first - rows_.begin + out};
  Check(rows.begin >= 0 && rows.end <= rows_.count(), "the band has rows that Begin has not");
  QuantizedModule held = module_;
  held.out = rows_.count();
  const std::vector<Slice> slices = SlicesOf(*packer_, held, rows);
  std::vector<TensorRows> places;
  for (size_t t = 0; t < slices.size(); ++t) {
    const TensorRows& all = parts_[t].place;
    const int64_t runs = all.lines == 0 ? 0 : slices[t].runs;
    places.push_back({all.data + slices[t].offset, runs, slices[t].bytes,
                      static_cast<size_t>(slices[t].stride)});
  }
  return places;
}

void PackedRows::Pack(int64_t first, const QuantizedLinear& band) {
  CheckConsistent(band);
  packer_->PackRows(module_, first, band, PlacesOf(first, band.out));
}

void PackedRows::Pack(int64_t first, const RowBand& band) {
  if (!band.has_words()) return Pack(first, band.rows);
  packer_->PackWords(module_, first, band, PlacesOf(first, band.rows.out));
}

void PackedRows::WriteTo(CheckpointWriter& writer) const {
  for (const Part& part : parts_) {
    const TensorRows& rows = part.place;
    if (rows.lines == 0) continue;
    if (rows.line_bytes == part.stride) {  // all rows of the module: nothing between the runs
      const size_t bytes = static_cast<size_t>(rows.lines) * rows.line_bytes;
      writer.WriteAt(part.name, part.offset, {rows.data, bytes});
      continue;
    }
    for (int64_t line = 0; line < rows.lines; ++line) {
      const auto at = static_cast<size_t>(line);
      writer.WriteAt(part.name, part.offset + at * part.stride,
                     {rows.data + at * rows.stride, rows.line_bytes});
    }
  }
}

}  // namespace quantmill
