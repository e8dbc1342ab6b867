#include "formats/tensor_checks.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Any shape as one row; copied if it is not aligned.
std::optional<int64_t> FindNonFiniteBytes(std::span<const std::byte> bytes, DType dtype) {
  const auto count = static_cast<int64_t>(bytes.size()) / SizeOf(dtype);
  const auto alignment = static_cast<uintptr_t>(SizeOf(dtype));
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignment == 0) {
    return FindNonFinite({bytes.data(), dtype, 1, count, count});
  }
  const Tensor copy = HostTensor(dtype, 1, count);
  std::memcpy(copy.view().data, bytes.data(), bytes.size());
  return FindNonFinite(copy);
}

}  // namespace

bool IsConstant(std::span<const std::byte> bytes, size_t element_bytes) {
  if (bytes.size() < 2 * element_bytes) return false;
  // Equal to itself one element further on.
  return std::memcmp(bytes.data(), bytes.data() + element_bytes, bytes.size() - element_bytes) == 0;
}

std::optional<int64_t> FindNonFinite(const Checkpoint& checkpoint, const std::string& tensor) {
  const std::optional<DType> dtype = checkpoint.Info(tensor).type();
  if (!dtype || !IsDenseFloat(*dtype)) return std::nullopt;
  std::optional<int64_t> found;
  checkpoint.ForEachPiece(tensor, [&](uint64_t at, std::span<const std::byte> piece) {
    if (found) return;
    found = FindNonFiniteBytes(piece, *dtype);
    if (found) *found += static_cast<int64_t>(at) / SizeOf(*dtype);
  });
  return found;
}

void CheckDenseTensor(const Checkpoint& checkpoint, const std::string& name,
                      std::vector<TensorProblem>& problems) {
  const TensorInfo& info = checkpoint.Info(name);
  const std::optional<DType> dtype = info.type();
  if (!dtype || info.bytes() == 0) return;
  const auto element = static_cast<size_t>(SizeOf(*dtype));
  std::optional<int64_t> non_finite;
  bool constant = info.shape.size() >= 2 && info.bytes() >= 2 * element;
  std::vector<std::byte> first;  // element of the tensor
  checkpoint.ForEachPiece(name, [&](uint64_t at, std::span<const std::byte> piece) {
    if (at == 0) first.assign(piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(element));
    if (IsDenseFloat(*dtype) && !non_finite) {
      non_finite = FindNonFiniteBytes(piece, *dtype);
      if (non_finite) *non_finite += static_cast<int64_t>(at / element);
    }
    // The piece's first element equals the tensor's, and the others equal their neighbours.
    constant = constant && std::memcmp(piece.data(), first.data(), element) == 0 &&
               (piece.size() == element || IsConstant(piece, element));
  });
  if (non_finite) {
    problems.push_back({TensorProblem::Kind::kNonFinite, name,
                        "element " + std::to_string(*non_finite) + " of " +
                            ShapeString(info.shape) + " is NaN or infinite"});
  }
  if (constant) {
    problems.push_back({TensorProblem::Kind::kConstant, name,
                        "all elements of " + ShapeString(info.shape) + " are equal"});
  }
}

}  // namespace quantmill
