#include "kernels/core/matrix.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace quantmill {
namespace {

// From here on a block is mapped on its own, so that freeing it lowers the resident set at once
// (glibc's heap keeps freed blocks, and its mmap threshold moves by itself).
constexpr size_t kMapFrom = size_t{1} << 20;
constexpr size_t kHugePagesFrom = size_t{16} << 20;

[[noreturn]] void OutOfMemory(size_t bytes) {
  throw Error(ErrorCode::kEnvironment, "memory",
              "cannot allocate " + std::to_string(bytes >> 20) +
                  " MiB; lower --samples, --sequence-length or --max-host-mem, or free memory");
}

template <typename T>
void WidenRowOf(ConstMatrix m, int64_t row, float* to) {
  std::transform(m.Row<T>(row), m.Row<T>(row) + m.cols, to, [](T x) { return ToFloat(x); });
}

}  // namespace

void WidenRow(ConstMatrix m, int64_t row, float* to) {
  switch (m.dtype) {
    case DType::kF32:
      return WidenRowOf<float>(m, row, to);
    case DType::kF16:
      return WidenRowOf<F16>(m, row, to);
    case DType::kBF16:
      return WidenRowOf<BF16>(m, row, to);
    default:
      Check(false, "WidenRow: not a dense float type");
  }
}

Tensor HostTensor(DType dtype, int64_t rows, int64_t cols) {
  Check(rows >= 0 && cols >= 0, "HostTensor: negative size");
  const size_t raw = static_cast<size_t>(rows * cols * SizeOf(dtype));
  const size_t bytes = (raw + 64) / 64 * 64;  // never zero, so that data() is never null
  const Matrix shape{nullptr, dtype, rows, cols, cols};
  Matrix view = shape;
  if (bytes >= kMapFrom) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) OutOfMemory(bytes);
    // Fewer page faults and TLB misses. Only a hint, and only where rounding up to 2 MiB pages does
    // not show.
    if (bytes >= kHugePagesFrom) madvise(p, bytes, MADV_HUGEPAGE);
    view.data = p;
    return Tensor(view, [bytes](void* q) { munmap(q, bytes); });
  }
  view.data = std::aligned_alloc(64, bytes);
  if (view.data == nullptr) OutOfMemory(bytes);
  return Tensor(view, [](void* q) { std::free(q); });
}

}  // namespace quantmill
