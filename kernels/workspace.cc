#include "kernels/workspace.h"

#include <algorithm>

namespace quantmill {

Workspace::Scope::Scope(Workspace& workspace)
    : workspace_(workspace),
      filling_(workspace.filling_),
      used_(workspace.used_),
      taken_(workspace.taken_) {
  ++workspace_.depth_;
}

Workspace::Scope::~Scope() {
  Workspace& w = workspace_;
  w.filling_ = filling_;
  w.used_ = used_;
  w.taken_ = taken_;
  if (--w.depth_ > 0) return;
  if (w.peak_ > w.bytes() || w.chunks_.size() > 1) {  // the same use again shall fit one chunk
    w.next_chunk_ = w.peak_;
    w.chunks_.clear();
  }
}

Matrix Workspace::Scope::Take(DType dtype, int64_t rows, int64_t cols) {
  Workspace& w = workspace_;
  const int64_t bytes = (rows * cols * SizeOf(dtype) + 63) / 64 * 64;
  w.MakeRoom(bytes);
  auto* base = w.chunks_[w.filling_].Row<uint8_t>(0);
  Matrix taken{base + w.used_, dtype, rows, cols, cols};
  w.used_ += bytes;
  w.taken_ += bytes;
  w.peak_ = std::max(w.peak_, w.taken_);
  return taken;
}

void Workspace::MakeRoom(int64_t bytes) {
  if (filling_ < chunks_.size() && used_ + bytes <= chunks_[filling_].bytes()) return;
  const size_t next = taken_ == 0 ? 0 : filling_ + 1;
  filling_ = next;
  used_ = 0;
  if (next < chunks_.size() && bytes <= chunks_[next].bytes()) return;
  chunks_.resize(next);  // what is there is too small, and holds nothing
  chunks_.push_back(allocate_(DType::kU8, 1, std::max(bytes, next_chunk_)));
  next_chunk_ = kMinChunk;
}

int64_t Workspace::bytes() const {
  int64_t total = 0;
  for (const Tensor& chunk : chunks_) total += chunk.bytes();
  return total;
}

void Workspace::Trim() {
  Check(depth_ == 0, "Workspace::Trim: a scope is alive");
  chunks_.clear();
  filling_ = 0;
  used_ = 0;
  peak_ = 0;
  next_chunk_ = kMinChunk;
}

}  // namespace quantmill
