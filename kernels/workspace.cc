#include "kernels/workspace.h"

#include <algorithm>

namespace quantmill {

Workspace::Scope::Scope(Workspace& workspace)
    : workspace_(workspace),
      chunks_(workspace.chunks_.size()),
      used_(workspace.used_),
      taken_(workspace.taken_) {
  ++workspace_.depth_;
}

Workspace::Scope::~Scope() {
  Workspace& w = workspace_;
  w.taken_ = taken_;
  if (--w.depth_ > 0) {
    w.chunks_.resize(chunks_);
    w.used_ = used_;
    return;
  }
  if (w.peak_ > w.bytes() || w.chunks_.size() > 1) {  // the same use again shall fit one chunk
    w.next_chunk_ = w.peak_;
    w.chunks_.clear();
  }
  w.used_ = 0;
}

Matrix Workspace::Scope::Take(DType dtype, int64_t rows, int64_t cols) {
  Workspace& w = workspace_;
  const int64_t bytes = (rows * cols * SizeOf(dtype) + 63) / 64 * 64;
  if (w.chunks_.empty() || w.used_ + bytes > w.chunks_.back().bytes()) {
    if (w.taken_ == 0) w.chunks_.clear();  // it is too small, and holds nothing
    w.chunks_.push_back(w.allocate_(DType::kU8, 1, std::max(bytes, w.next_chunk_)));
    w.next_chunk_ = kMinChunk;
    w.used_ = 0;
  }
  auto* base = w.chunks_.back().Row<uint8_t>(0);
  Matrix taken{base + w.used_, dtype, rows, cols, cols};
  w.used_ += bytes;
  w.taken_ += bytes;
  w.peak_ = std::max(w.peak_, w.taken_);
  return taken;
}

int64_t Workspace::bytes() const {
  int64_t total = 0;
  for (const Tensor& chunk : chunks_) total += chunk.bytes();
  return total;
}

void Workspace::Trim() {
  Check(depth_ == 0, "Workspace::Trim: a scope is alive");
  chunks_.clear();
  used_ = 0;
  peak_ = 0;
  next_chunk_ = kMinChunk;
}

}  // namespace quantmill
