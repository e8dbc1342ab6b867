// One test body for every backend: a fixture parameterised over all backends and instruction sets
// that this machine can run, each compared with the reference backend.
//
//   class NormTest : public quantmill::test::BackendTest {};
//   TEST_P(NormTest, MatchesReference) {
//     const Tensor x = NormalMatrix(random, DType::kF32, 5, 64);
//     Tensor got = Empty(DType::kF32, 5, 64);          // memory of the tested backend
//     backend().Norm(exec(), OnDevice(x), params, got);
//     Tensor want = HostTensor(DType::kF32, 5, 64);
//     reference().Norm(reference_exec(), x, params, want);
//     EXPECT_TRUE(Within(OnHost(got), want, bound));
//   }
//   QUANTMILL_ALL_BACKENDS(NormTest);
#ifndef QUANTMILL_TESTS_SUPPORT_BACKENDS_H_
#define QUANTMILL_TESTS_SUPPORT_BACKENDS_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/open_cuda.h"
#include "kernels/ops.h"
#include "kernels/own_exec.h"
#include "kernels/select.h"

namespace quantmill::test {

// A backend with a stream and a workspace of its own.
class BackendRun {
 public:
  explicit BackendRun(std::unique_ptr<Backend> backend)
      : backend_(std::move(backend)), exec_(*backend_) {}
  BackendRun(const BackendRun&) = delete;
  BackendRun& operator=(const BackendRun&) = delete;

  Backend& backend() { return *backend_; }
  Exec& exec() { return exec_.exec(); }
  Tensor Empty(DType dtype, int64_t rows, int64_t cols) {
    return backend_->Empty(dtype, rows, cols);
  }
  // A copy in the backend's memory.
  Tensor OnDevice(ConstMatrix host) {
    Tensor device = backend_->Empty(host.dtype, host.rows, host.cols);
    backend_->Upload(exec(), host, device);
    exec_.stream().Synchronize();
    return device;
  }
  // A copy in host memory.
  Tensor OnHost(ConstMatrix device) {
    Tensor host = HostTensor(device.dtype, device.rows, device.cols);
    backend_->Download(exec(), device, host);
    return host;
  }

 private:
  std::unique_ptr<Backend> backend_;
  OwnExec exec_;
};

// "cpu_avx512", ..., "cuda_host" (the kernels of cuda on the CPU), and "cuda" where it is built and
// there is a device.
inline std::vector<std::string> TestedBackends() {
  std::vector<std::string> names;
  for (const std::string& isa : AvailableIsas()) names.push_back("cpu_" + isa);
  names.emplace_back("cuda_host");
  for (const std::string& device : BuiltBackends()) {
    if (device == "cpu") continue;
    try {
      SelectBackend(device, 1);
      names.push_back(device);
    } catch (const Error&) {
      // No such device here; tests of the backend's own target skip visibly.
    }
  }
  return names;
}

inline std::unique_ptr<Backend> MakeBackend(const std::string& name, int threads) {
  const std::string prefix = "cpu_";
  if (name.starts_with(prefix)) return CpuBackend(name.substr(prefix.size()), threads);
  if (name == "cuda_host") return cuda_host::OpenCuda(threads);
  return SelectBackend(name, threads);
}

class BackendTest : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int kThreads = 2;

  BackendTest() : tested_(MakeBackend(GetParam(), kThreads)), reference_(ReferenceBackend()) {}

  // Whether the tested backend is the host executor, which runs the threads of a GPU one by one:
  // tests that go through many combinations take some of them there.
  static bool IsSlow() { return GetParam() == "cuda_host"; }

  BackendRun& tested() { return tested_; }
  Backend& backend() { return tested_.backend(); }
  Exec& exec() { return tested_.exec(); }
  Tensor Empty(DType dtype, int64_t rows, int64_t cols) { return tested_.Empty(dtype, rows, cols); }
  Tensor OnDevice(ConstMatrix host) { return tested_.OnDevice(host); }
  Tensor OnHost(ConstMatrix device) { return tested_.OnHost(device); }
  Backend& reference() { return reference_.backend(); }
  Exec& reference_exec() { return reference_.exec(); }

  // The tested backend again, with another number of threads.
  std::unique_ptr<BackendRun> WithThreads(int threads) const {
    return std::make_unique<BackendRun>(MakeBackend(GetParam(), threads));
  }

 private:
  BackendRun tested_;
  BackendRun reference_;
};

}  // namespace quantmill::test

// Runs the TEST_P bodies of `fixture` (derived from BackendTest) on every tested backend.
#define QUANTMILL_ALL_BACKENDS(fixture)                                          \
  INSTANTIATE_TEST_SUITE_P(                                                      \
      Backends, fixture, testing::ValuesIn(::quantmill::test::TestedBackends()), \
      [](const testing::TestParamInfo<std::string>& param_info) { return param_info.param; })

#endif  // QUANTMILL_TESTS_SUPPORT_BACKENDS_H_
