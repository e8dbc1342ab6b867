#include <dlfcn.h>

#include <string>

#include "kernels/core/error.h"
#include "kernels/cuda/libraries.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// The major version of its header; other ones may have other types.
void* OpenLibrary(const std::string& name, int major) {
  const std::string file = "lib" + name + ".so." + std::to_string(major);
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  throw Error(ErrorCode::kEnvironment, "--device cuda",
              std::string(dlerror()) +
                  "; install the libraries of CUDA, name their folder in LD_LIBRARY_PATH, or use "
                  "--device cpu");
}

template <typename Function>
void Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function != nullptr) return;
  throw Error(ErrorCode::kEnvironment, "--device cuda", std::string(dlerror()));
}

// They stay until the program ends.
LibraryFunctions LoadFunctions() {
  LibraryFunctions functions = {};
  void* const cublas = OpenLibrary("cublas", CUBLAS_VER_MAJOR);
  void* const cusolver = OpenLibrary("cusolver", CUSOLVER_VER_MAJOR);
#define QUANTMILL_FIND_CUBLAS(name) Find(cublas, #name, functions.name);
  QUANTMILL_CUBLAS_FUNCTIONS(QUANTMILL_FIND_CUBLAS)
#undef QUANTMILL_FIND_CUBLAS
  Find(cublas, "cublasGemmEx", functions.cublasGemmEx);
#define QUANTMILL_FIND_CUSOLVER(name) Find(cusolver, #name, functions.name);
  QUANTMILL_CUSOLVER_FUNCTIONS(QUANTMILL_FIND_CUSOLVER)
#undef QUANTMILL_FIND_CUSOLVER
  return functions;
}

}  // namespace

const LibraryFunctions& Functions() {
  static const LibraryFunctions functions = LoadFunctions();
  return functions;
}

void CheckBlas(cublasStatus_t status, const std::source_location& location) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    CheckFailed(std::string("cuBLAS: ") + Functions().cublasGetStatusString(status), location);
  }
}

void CheckSolver(cusolverStatus_t status, const std::source_location& location) {
  if (status != CUSOLVER_STATUS_SUCCESS) {
    CheckFailed("cuSOLVER: status " + std::to_string(static_cast<int>(status)), location);
  }
}

DeviceStream::Libraries::Libraries(cudaStream_t stream) : functions(Functions()) {
  CheckBlas(functions.cublasCreate(&blas));
  CheckBlas(functions.cublasSetStream(blas, stream));
  // No TF32, and no sums in an order that changes from run to run.
  CheckBlas(functions.cublasSetMathMode(blas, CUBLAS_DEFAULT_MATH));
  CheckBlas(functions.cublasSetAtomicsMode(blas, CUBLAS_ATOMICS_NOT_ALLOWED));
  CheckSolver(functions.cusolverDnCreate(&solver));
  CheckSolver(functions.cusolverDnSetStream(solver, stream));
  CheckSolver(functions.cusolverDnSetDeterministicMode(solver, CUSOLVER_DETERMINISTIC_RESULTS));
  CheckSolver(functions.cusolverDnCreateParams(&solver_params));
}

DeviceStream::Libraries::~Libraries() {
  functions.cusolverDnDestroyParams(solver_params);
  functions.cusolverDnDestroy(solver);
  functions.cublasDestroy(blas);
}

}  // namespace quantmill::QUANTMILL_CUDA
