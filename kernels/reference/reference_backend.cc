#include "kernels/reference/reference_backend.h"

#include <cstring>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_elements.h"

namespace quantmill::reference {
namespace {

class ReferenceStream : public Stream {
 public:
  void Synchronize() override {}
  void RunAfter(Stream& /*other*/) override {}
};

void Write(Matrix m, int64_t r, int64_t c, float x) {
  switch (m.dtype) {
    case DType::kF32:
      m.Row<float>(r)[c] = x;
      return;
    case DType::kF16:
      m.Row<F16>(r)[c] = ToF16(x);
      return;
    case DType::kBF16:
      m.Row<BF16>(r)[c] = ToBF16(x);
      return;
    default:
      Check(false, "Upload, Download: conversion to a type that is not a dense float");
  }
}

void Copy(ConstMatrix from, Matrix to) {
  Check(from.rows == to.rows && from.cols == to.cols, "Upload, Download: shapes differ");
  const int64_t size = SizeOf(from.dtype);
  for (int64_t r = 0; r < from.rows; ++r) {
    if (from.dtype == to.dtype) {
      std::memcpy(static_cast<std::byte*>(to.data) + r * to.stride * size,
                  static_cast<const std::byte*>(from.data) + r * from.stride * size,
                  static_cast<size_t>(from.cols * size));
      continue;
    }
    for (int64_t c = 0; c < from.cols; ++c) Write(to, r, c, Read(from, r, c));
  }
}

}  // namespace

BackendInfo ReferenceBackend::Info() const { return {.name = "reference", .isa = "generic"}; }

std::unique_ptr<Stream> ReferenceBackend::NewStream() {
  return std::make_unique<ReferenceStream>();
}

Tensor ReferenceBackend::Empty(DType dtype, int64_t rows, int64_t cols) {
  return HostTensor(dtype, rows, cols);
}

void ReferenceBackend::Upload(Exec&, ConstMatrix host, Matrix device) { Copy(host, device); }

void ReferenceBackend::Download(Exec&, ConstMatrix device, Matrix host) { Copy(device, host); }

void ReferenceBackend::Convert(Exec&, ConstMatrix x, Matrix out) {
  CheckConvert(x, out);
  Copy(x, out);
}

void ReferenceBackend::Zero(Exec&, Matrix x) {
  const int64_t size = SizeOf(x.dtype);
  for (int64_t r = 0; r < x.rows; ++r) {
    std::memset(static_cast<std::byte*>(x.data) + r * x.stride * size, 0,
                static_cast<size_t>(x.cols * size));
  }
}

}  // namespace quantmill::reference
