#include "tools/session.h"

namespace quantmill {

Session::Session(const CommonFlags& flags)
    : backend_(SelectBackend(flags.device, flags.threads)), exec_(*backend_) {}

std::string Session::Describe() const {
  const BackendInfo info = backend_->Info();
  return info.name + " " + info.isa + ", " + std::to_string(info.threads) +
         (info.threads == 1 ? " thread" : " threads");
}

Compute Session::ComputeNamed(const std::string& name) const {
  const BackendInfo info = backend_->Info();
  if (name == "f32" || (name == "auto" && !info.compute_bf16)) return Compute::kF32;
  if (info.compute_bf16) return Compute::kBF16;
  throw Error(ErrorCode::kEnvironment, "--compute bf16",
              info.name + " " + info.isa + " does not multiply in bf16; use --compute f32");
}

}  // namespace quantmill
