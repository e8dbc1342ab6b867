// Memory of the cuda backend.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/open_cuda.h"
#include "kernels/cuda/upload.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

template <typename From, typename To>
__global__ void ConvertKernel(View<const From> x, View<To> out) {
  ForEachElement(x.rows, x.cols, [&](int64_t row, int64_t col) {
    out.Row(row)[col] = FromFloat<To>(ToFloat(x.Row(row)[col]));
  });
}

}  // namespace

void ConvertOnDevice(Exec& exec, ConstMatrix x, Matrix out) {
  WithFloatType(x.dtype, [&](auto from) {
    WithFloatType(out.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      Launch(exec, ConvertKernel<From, To>, Elementwise(x.rows, x.cols), In<From>(x), Out<To>(out));
    });
  });
}

namespace {

int64_t Pitch(ConstMatrix m) { return m.stride * SizeOf(m.dtype); }
int64_t RowBytes(ConstMatrix m) { return m.cols * SizeOf(m.dtype); }

}  // namespace

bool HasDevice() {
  try {
    OpenDevice();
    return true;
  } catch (const Error&) {
    return false;  // `auto` asks; who names the device gets the reason
  }
}

std::unique_ptr<Backend> OpenCuda(int host_threads) {
  return std::make_unique<CudaBackend>(host_threads);
}

BackendInfo CudaBackend::Info() const {
  return {.name = "cuda",
          .isa = device_.name + " (sm_" + std::to_string(device_.compute_capability) + ")",
          .compute_bf16 = true,
          .attention_bf16 = true,
          .threads = host_threads_,
          .memory = device_.memory,
          .memory_overhead = device_.memory_overhead};
}

std::unique_ptr<Stream> CudaBackend::NewStream() {
  return std::make_unique<DeviceStream>(memory_.streams());
}

Tensor CudaBackend::Empty(DType dtype, int64_t rows, int64_t cols) {
  return memory_.Allocate(dtype, rows, cols);
}

Tensor CudaBackend::EmptyOnHost(DType dtype, int64_t rows, int64_t cols) {
  void* memory = AllocateLocked(rows * cols * SizeOf(dtype));
  return Tensor(Matrix{memory, dtype, rows, cols, cols}, FreeLocked);
}

// Types are converted on the device: the smaller of the two, or the only one, crosses the bus.
void CudaBackend::Upload(Exec& exec, ConstMatrix host, Matrix device) {
  Check(host.rows == device.rows && host.cols == device.cols, "Upload: shapes differ");
  Workspace::Scope scope(exec.workspace);
  const Matrix landed =
      host.dtype == device.dtype ? device : scope.Take(host.dtype, host.rows, host.cols);
  UploadRows(exec, host, landed);
  if (host.dtype != device.dtype) ConvertOnDevice(exec, landed, device);
}

void CudaBackend::Download(Exec& exec, ConstMatrix device, Matrix host) {
  Check(host.rows == device.rows && host.cols == device.cols, "Download: shapes differ");
  Workspace::Scope scope(exec.workspace);
  ConstMatrix leaving = device;
  if (host.dtype != device.dtype) {
    const Matrix converted = scope.Take(host.dtype, device.rows, device.cols);
    ConvertOnDevice(exec, device, converted);
    leaving = converted;
  }
  StreamOf(exec).CopyToHost(host.data, Pitch(host), leaving.data, Pitch(leaving), RowBytes(host),
                            host.rows);
}

void CudaBackend::DownloadLater(Exec& exec, ConstMatrix device, Matrix host) {
  Check(host.dtype == device.dtype && host.rows == device.rows && host.cols == device.cols,
        "DownloadLater: types or shapes differ");
  StreamOf(exec).CopyToHostLater(host.data, Pitch(host), device.data, Pitch(device), RowBytes(host),
                                 host.rows);
}

void CudaBackend::Zero(Exec& exec, Matrix x) {
  StreamOf(exec).ZeroOnDevice(x.data, Pitch(x), RowBytes(x), x.rows);
}

void CudaBackend::Convert(Exec& exec, ConstMatrix x, Matrix out) {
  CheckConvert(x, out);
  if (out.dtype != DType::kF32) return ConvertOnDevice(exec, x, out);
  StreamOf(exec).CopyOnDevice(out.data, Pitch(out), x.data, Pitch(x), RowBytes(x), x.rows);
}

}  // namespace quantmill::QUANTMILL_CUDA
