// A backend with everything that running on it takes.
#ifndef QUANTMILL_TOOLS_SESSION_H_
#define QUANTMILL_TOOLS_SESSION_H_

#include <memory>
#include <string>

#include "kernels/ops.h"
#include "kernels/own_exec.h"
#include "kernels/select.h"
#include "tools/command.h"

namespace quantmill {

// Made from --device and --threads. Neither copyable nor movable.
class Session {
 public:
  // Throws as SelectBackend does.
  explicit Session(const CommonFlags& flags);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Backend& backend() { return *backend_; }
  Exec& exec() { return exec_.exec(); }
  // "cpu avx512_bf16, 2 threads"
  std::string Describe() const;
  // --compute: "f32", "bf16", or "auto", which is bf16 where it is fast. Error(kEnvironment) for
  // bf16 where the backend has none.
  Compute ComputeNamed(const std::string& name) const;

 private:
  std::unique_ptr<Backend> backend_;
  OwnExec exec_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_SESSION_H_
