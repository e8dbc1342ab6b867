#include "formats/tensor_checks.h"

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

void CheckDenseTensor(const Checkpoint& checkpoint, const std::string& name,
                      std::vector<TensorProblem>& problems) {
  const TensorInfo& info = checkpoint.Info(name);
  const std::optional<DType> dtype = info.type();
  if (!dtype || info.bytes() == 0) return;
  const std::span<const std::byte> bytes = checkpoint.Bytes(name);
  if (IsDenseFloat(*dtype)) {
    if (const std::optional<int64_t> index = FindNonFiniteBytes(bytes, *dtype)) {
      problems.push_back({TensorProblem::Kind::kNonFinite, name,
                          "element " + std::to_string(*index) + " of " + ShapeString(info.shape) +
                              " is NaN or infinite"});
    }
  }
  if (info.shape.size() >= 2 && IsConstant(bytes, static_cast<size_t>(SizeOf(*dtype)))) {
    problems.push_back({TensorProblem::Kind::kConstant, name,
                        "all elements of " + ShapeString(info.shape) + " are equal"});
  }
  checkpoint.Release(name);
}

}  // namespace quantmill
