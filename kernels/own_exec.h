// An Exec with a stream and a workspace of its own.
#ifndef QUANTMILL_KERNELS_OWN_EXEC_H_
#define QUANTMILL_KERNELS_OWN_EXEC_H_

#include <memory>

#include "kernels/ops.h"
#include "kernels/workspace.h"

namespace quantmill {

// Neither copyable nor movable: the Exec refers to its fields.
class OwnExec {
 public:
  // `backend` must outlive it.
  explicit OwnExec(Backend& backend)
      : stream_(backend.NewStream()),
        workspace_([&backend](DType dtype, int64_t rows, int64_t cols) {
          return backend.Empty(dtype, rows, cols);
        }),
        exec_{*stream_, workspace_} {}
  OwnExec(const OwnExec&) = delete;
  OwnExec& operator=(const OwnExec&) = delete;

  Exec& exec() { return exec_; }
  Stream& stream() { return *stream_; }

 private:
  std::unique_ptr<Stream> stream_;
  Workspace workspace_;
  Exec exec_;
};

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_OWN_EXEC_H_
