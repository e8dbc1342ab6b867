#include "quant/runtime/head.h"

#include "quant/runtime/norm.h"

namespace quantmill {

Head::Head(Backend& backend, Exec& exec, const ModelSource& source, Compute compute)
    : backend_(backend), exec_(exec), spec_(source.spec()) {
  norm_ = LoadVector(backend, exec, source, spec_.final_norm);
  norm_bias_ = LoadVector(backend, exec, source, spec_.final_norm_bias);
  if (!spec_.project_out.name.empty()) {
    project_out_ = LoadLinear(backend, exec, source, spec_.project_out, compute);
  }
  head_ = LoadLinear(backend, exec, source, spec_.lm_head, compute);
}

int64_t Head::weight_bytes() const {
  return head_.weight->bytes() +
         (project_out_.weight == nullptr ? 0 : project_out_.weight->bytes());
}

void Head::Normalize(ConstMatrix residual, Matrix hidden) {
  if (norm_.empty()) return backend_.Convert(exec_, residual, hidden);
  backend_.Norm(exec_, residual, NormOf(spec_, norm_, norm_bias_), hidden);
}

void Head::Logits(ConstMatrix hidden, Matrix logits) {
  Project(hidden, logits);
  if (spec_.logit_softcap > 0) backend_.SoftCap(exec_, spec_.logit_softcap, logits);
}

void Head::Project(ConstMatrix hidden, Matrix logits) {
  if (project_out_.weight == nullptr) {
    return backend_.MatMul(exec_, hidden, *head_.weight, head_.bias, MatMulMode::kStore, logits);
  }
  Workspace::Scope scope(exec_.workspace);
  const Matrix projected = scope.Take(hidden.dtype, hidden.rows, spec_.embedding_width());
  backend_.MatMul(exec_, hidden, *project_out_.weight, project_out_.bias, MatMulMode::kStore,
                  projected);
  backend_.MatMul(exec_, projected, *head_.weight, head_.bias, MatMulMode::kStore, logits);
}

}  // namespace quantmill
