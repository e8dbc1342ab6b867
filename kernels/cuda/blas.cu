// cuBLAS and cuSOLVER are column-major: a row-major matrix is its transpose to them, and the lower
// triangle of one the upper triangle of the other.
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/libraries.h"

namespace quantmill::QUANTMILL_CUDA {

namespace {

DeviceStream::Libraries& LibrariesOf(Exec& exec) { return StreamOf(exec).libraries(); }

cudaDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return CUDA_R_64F;
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kBF16:
      return CUDA_R_16BF;
    default:
      Check(false, "blas: no such type");
      return CUDA_R_32F;
  }
}

cublasOperation_t Operation(Transpose transpose) {
  return transpose == Transpose::kYes ? CUBLAS_OP_T : CUBLAS_OP_N;
}

// Workspace of a cuSOLVER call: device memory of the scope, and host memory.
struct SolverWorkspace {
  void* device = nullptr;
  size_t device_bytes = 0;
  std::vector<std::byte> host;
};

SolverWorkspace TakeWorkspace(Workspace::Scope& scope, size_t device_bytes, size_t host_bytes) {
  SolverWorkspace workspace;
  workspace.device = scope.Take(DType::kU8, 1, static_cast<int64_t>(device_bytes)).data;
  workspace.device_bytes = device_bytes;
  workspace.host.resize(host_bytes);
  return workspace;
}

int ReadInfo(Exec& exec, const Matrix& info) {
  int value = 0;
  StreamOf(exec).CopyToHost(&value, sizeof(value), info.data, sizeof(value), sizeof(value), 1);
  return value;
}

}  // namespace

void Gemm(Exec& exec, Transpose transpose_a, ConstMatrix a, Transpose transpose_b, ConstMatrix b,
          float beta, Matrix c) {
  Check(a.dtype == b.dtype && c.dtype == DType::kF32, "Gemm: a and b of one type, c of F32");
  const int64_t depth = transpose_a == Transpose::kNo ? a.cols : a.rows;
  Check(c.rows == (transpose_a == Transpose::kNo ? a.rows : a.cols) &&
            c.cols == (transpose_b == Transpose::kNo ? b.cols : b.rows) &&
            depth == (transpose_b == Transpose::kNo ? b.rows : b.cols),
        "Gemm: shapes differ");
  if (c.size() == 0) return;
  if (depth == 0) {
    if (beta == 0) {
      StreamOf(exec).ZeroOnDevice(c.data, c.stride * 4, c.cols * 4, c.rows);
    }
    return;
  }
  const float one = 1;
  DeviceStream::Libraries& libraries = LibrariesOf(exec);
  CheckBlas(libraries.functions.cublasGemmEx(
      libraries.blas, Operation(transpose_b), Operation(transpose_a), static_cast<int>(c.cols),
      static_cast<int>(c.rows), static_cast<int>(depth), &one, b.data, TypeOf(b.dtype),
      static_cast<int>(b.stride), a.data, TypeOf(a.dtype), static_cast<int>(a.stride), &beta,
      c.data, CUDA_R_32F, static_cast<int>(c.stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

int64_t CholeskyLower(Exec& exec, Matrix a) {
  Check(a.rows == a.cols, "CholeskyLower: a is [n, n]");
  if (a.rows == 0) return -1;
  DeviceStream::Libraries& libraries = LibrariesOf(exec);
  const cudaDataType_t type = TypeOf(a.dtype);
  size_t device_bytes = 0;
  size_t host_bytes = 0;
  CheckSolver(libraries.functions.cusolverDnXpotrf_bufferSize(
      libraries.solver, libraries.solver_params, CUBLAS_FILL_MODE_UPPER, a.rows, type, a.data,
      a.stride, type, &device_bytes, &host_bytes));
  Workspace::Scope scope(exec.workspace);
  SolverWorkspace workspace = TakeWorkspace(scope, device_bytes, host_bytes);
  const Matrix info = scope.Take(DType::kI32, 1, 1);
  CheckSolver(libraries.functions.cusolverDnXpotrf(
      libraries.solver, libraries.solver_params, CUBLAS_FILL_MODE_UPPER, a.rows, type, a.data,
      a.stride, type, workspace.device, workspace.device_bytes, workspace.host.data(),
      workspace.host.size(), info.Row<int32_t>(0)));
  const int failed = ReadInfo(exec, info);
  Check(failed >= 0, "cuSOLVER: potrf was given a wrong argument");
  return failed == 0 ? -1 : failed - 1;
}

void InvertLower(Exec& exec, Matrix a) {
  Check(a.rows == a.cols, "InvertLower: a is [n, n]");
  if (a.rows == 0) return;
  DeviceStream::Libraries& libraries = LibrariesOf(exec);
  const cudaDataType_t type = TypeOf(a.dtype);
  size_t device_bytes = 0;
  size_t host_bytes = 0;
  CheckSolver(libraries.functions.cusolverDnXtrtri_bufferSize(
      libraries.solver, CUBLAS_FILL_MODE_UPPER, CUBLAS_DIAG_NON_UNIT, a.rows, type, a.data,
      a.stride, &device_bytes, &host_bytes));
  Workspace::Scope scope(exec.workspace);
  SolverWorkspace workspace = TakeWorkspace(scope, device_bytes, host_bytes);
  const Matrix info = scope.Take(DType::kI32, 1, 1);
  CheckSolver(libraries.functions.cusolverDnXtrtri(
      libraries.solver, CUBLAS_FILL_MODE_UPPER, CUBLAS_DIAG_NON_UNIT, a.rows, type, a.data,
      a.stride, workspace.device, workspace.device_bytes, workspace.host.data(),
      workspace.host.size(), info.Row<int32_t>(0)));
  Check(ReadInfo(exec, info) == 0, "cuSOLVER: a triangle with a zero on its diagonal");
}

void MultiplyUpper(Exec& exec, ConstMatrix x, Transpose transpose, ConstMatrix factor, Matrix y) {
  Check(x.cols == factor.rows && factor.rows == factor.cols && y.rows == x.rows && y.cols == x.cols,
        "MultiplyUpper: shapes differ");
  if (x.size() == 0) return;
  const float one = 1;
  DeviceStream::Libraries& libraries = LibrariesOf(exec);
  CheckBlas(libraries.functions.cublasStrmm(
      libraries.blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, Operation(transpose),
      CUBLAS_DIAG_NON_UNIT, static_cast<int>(x.cols), static_cast<int>(x.rows), &one,
      factor.Row<float>(0), static_cast<int>(factor.stride), x.Row<float>(0),
      static_cast<int>(x.stride), y.Row<float>(0), static_cast<int>(y.stride)));
}

}  // namespace quantmill::QUANTMILL_CUDA
