#include "quant/pipeline/probe_streams.h"

#include <algorithm>
#include <span>

#include "quant/runtime/embedding.h"
#include "quant/runtime/head.h"
#include "quant/runtime/kv_precision.h"

namespace quantmill {
namespace {

constexpr int64_t kLogitRows = 64;  // at a time

KvShape OneWindow(const DecoderSpec& spec, int64_t length, DType dtype) {
  KvShape shape;
  shape.layers = 1;
  shape.blocks = (length + kKvBlockTokens - 1) / kKvBlockTokens;
  shape.kv_heads = spec.kv_heads;
  shape.head_dim = spec.head_dim;
  shape.dtype = dtype;
  return shape;
}

}  // namespace

ProbeStreams::ProbeStreams(Backend& backend, Exec& exec, const ModelSource& source,
                           const TokenWindows& windows, Compute compute)
    : backend_(backend),
      exec_(exec),
      windows_(windows),
      compute_(compute),
      forward_(backend, exec, source.spec(), compute),
      cache_(backend, exec,
             OneWindow(source.spec(), windows.length, FastCacheType(backend.Info(), compute))),
      sequence_(cache_) {
  const SequenceStep step = sequence_.Append(windows.length, 0);
  plan_ = backend.PlanBatch(exec, std::span(&step, 1));
  residuals_.push_back(backend.Empty(DType::kF32, windows.tokens(), source.spec().hidden));
  Embedding embedding(backend, exec, source, compute);
  for (int64_t row = 0; row < windows.tokens(); row += windows.length) {
    const auto ids = std::span(windows.ids)
                         .subspan(static_cast<size_t>(row), static_cast<size_t>(windows.length));
    embedding.Run(*plan_, ids, residuals_.back().view().Rows(row, windows.length));
  }
  source.checkpoint().Release(source.spec().embedding);
}

size_t ProbeStreams::Fork() {
  const Tensor& dense = residuals_.front();
  const Tensor host = HostTensor(DType::kF32, dense.rows(), dense.cols());
  backend_.Download(exec_, dense, host);
  residuals_.push_back(backend_.Empty(DType::kF32, dense.rows(), dense.cols()));
  backend_.Upload(exec_, host, residuals_.back());
  exec_.stream.Synchronize();  // `host` is read until then
  return residuals_.size() - 1;
}

void ProbeStreams::Run(size_t stream, const BlockSpec& block, const BlockWeights& weights) {
  const Matrix residual = residuals_[stream];
  for (int64_t row = 0; row < residual.rows; row += windows_.length) {
    forward_.Run(block, weights, {*plan_, 0, cache_.store()}, residual.Rows(row, windows_.length));
  }
}

std::vector<double> ProbeStreams::Divergences(const ModelSource& source) {
  const DecoderSpec& spec = source.spec();
  Head head(backend_, exec_, source, compute_);
  const auto logits_of = [&](size_t stream, int64_t row, int64_t rows, Workspace::Scope& scope) {
    const Matrix hidden = scope.Take(ActivationType(compute_), rows, spec.hidden);
    const Matrix logits = scope.Take(DType::kF32, rows, spec.vocab);
    head.Normalize(residuals_[stream].view().Rows(row, rows), hidden);
    head.Logits(hidden, logits);
    return logits;
  };
  std::vector<double> sums(residuals_.size(), 0);
  std::vector<TokenComparison> scores(kLogitRows);
  for (int64_t row = 0; row < windows_.tokens(); row += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, windows_.tokens() - row);
    const auto count = static_cast<size_t>(rows);
    // Divergence is of whole distributions: which token is asked for plays no part.
    const auto targets = std::span(windows_.ids).subspan(static_cast<size_t>(row), count);
    Workspace::Scope scope(exec_.workspace);
    const Matrix reference = logits_of(0, row, rows, scope);
    for (size_t stream = 1; stream < residuals_.size(); ++stream) {
      Workspace::Scope inner(exec_.workspace);
      const Matrix logits = logits_of(stream, row, rows, inner);
      backend_.CompareLogits(exec_, reference, logits, targets, std::span(scores).first(count));
      for (size_t i = 0; i < count; ++i) sums[stream] += scores[i].kl;
    }
  }
  for (double& sum : sums) sum /= static_cast<double>(windows_.tokens());
  return sums;
}

}  // namespace quantmill
