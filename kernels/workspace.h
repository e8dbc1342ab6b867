// Scratch memory of ops: a bump arena that grows to the largest need and is then reused.
#ifndef QUANTMILL_KERNELS_WORKSPACE_H_
#define QUANTMILL_KERNELS_WORKSPACE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/core/matrix.h"

namespace quantmill {

// Memory comes from `allocate` (a backend's Empty), so that on a GPU it is device memory. Not
// thread-safe: one Workspace belongs to one stream.
class Workspace {
 public:
  using Allocate = std::function<Tensor(DType, int64_t rows, int64_t cols)>;
  explicit Workspace(Allocate allocate) : allocate_(std::move(allocate)) {}

  // Everything taken while a Scope lives is given back, all at once, when it ends. Scopes nest.
  class Scope {
   public:
    explicit Scope(Workspace& workspace);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    // A contiguous [rows, cols] matrix, 64-byte aligned, uninitialized, valid until the scope ends.
    Matrix Take(DType dtype, int64_t rows, int64_t cols);

   private:
    Workspace& workspace_;
    size_t filling_;
    int64_t used_;
    int64_t taken_;
  };

  int64_t bytes() const;  // held now
  // Gives everything back to the system, and forgets how much was needed: what comes next may need
  // less. No Scope may be alive.
  void Trim();

 private:
  static constexpr int64_t kMinChunk = int64_t{1} << 16;

  // Sees to it that chunks_[filling_] has room behind used_.
  void MakeRoom(int64_t bytes);

  Allocate allocate_;
  // Filled in order. Those behind chunks_[filling_] are what inner scopes took: ops are called over
  // and over inside of one scope, and find their memory again.
  std::vector<Tensor> chunks_;
  size_t filling_ = 0;
  int64_t used_ = 0;                // bytes used of chunks_[filling_]
  int64_t taken_ = 0;               // bytes taken of all chunks
  int64_t peak_ = 0;                // most bytes taken at once, since Trim
  int64_t next_chunk_ = kMinChunk;  // least size of the next chunk
  int depth_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_WORKSPACE_H_
