#include "quant/calib/calibration_stream.h"

#include <algorithm>

#include "quant/runtime/embedding.h"

namespace quantmill {
namespace {

int64_t WindowsPerChunk(int64_t window, const StreamOptions& options) {
  return std::max<int64_t>(1, options.chunk_tokens / window);
}

KvShape ChunkCacheShape(const DecoderSpec& spec, int64_t window, const StreamOptions& options) {
  KvShape shape;
  shape.layers = 1;
  shape.blocks =
      WindowsPerChunk(window, options) * ((window + kKvBlockTokens - 1) / kKvBlockTokens);
  shape.kv_heads = spec.kv_heads;
  shape.head_dim = spec.head_dim;
  shape.dtype = options.cache;
  return shape;
}

// The site whose output is the input of `site`, where that is not the residual stream.
Site ProducerOf(Site site) {
  return site == Site::kAttentionOut ? Site::kAttentionIn : Site::kMlpIn;
}
// Columns that an MLP hands from kMlpIn to kMlpOut: the most of any block.
int64_t WidestCarriedMlp(const DecoderSpec& spec) {
  int64_t widest = 0;
  for (const BlockSpec& block : spec.blocks) {
    if (!block.is_mixture()) widest = std::max(widest, block.up.out);
  }
  return widest;
}
// The widest expert or shared expert of any mixture.
int64_t WidestExpert(const DecoderSpec& spec) {
  int64_t widest = 0;
  for (const BlockSpec& block : spec.blocks) {
    if (!block.is_mixture()) continue;
    widest = std::max({widest, block.up.out, block.mixture.experts.front().up.out});
  }
  return widest;
}

// Columns of F32 that a token has between blocks.
int64_t ResidualWidth(const DecoderSpec& spec) {
  return spec.hidden + BlockForward::PendingWidth(spec);
}

// Whether the site writes `carried`, and not the residual.
bool HandsOn(Site site) { return site == Site::kAttentionIn || site == Site::kMlpIn; }

// Columns of the memory for kept outputs: the attention's and the MLP's are never alive together.
int64_t KeptWidth(const DecoderSpec& spec, const StreamOptions& options) {
  return std::max(options.keep_attention ? spec.heads * spec.head_dim : 0,
                  options.keep_mlp ? WidestCarriedMlp(spec) : 0);
}

// Bytes of a token's activations.
int64_t TokenBytes(const DecoderSpec& spec, const StreamOptions& options) {
  return ResidualWidth(spec) * SizeOf(DType::kF32) +
         KeptWidth(spec, options) * SizeOf(ActivationType(options.compute));
}

}  // namespace

CalibrationStream::CalibrationStream(Backend& backend, Exec& exec, const ModelSource& source,
                                     const TokenWindows& windows, const StreamOptions& options)
    : backend_(backend),
      exec_(exec),
      spec_(source.spec()),
      windows_(windows),
      options_(options),
      forward_(backend, exec, source.spec(), options.compute),
      cache_(backend, exec, ChunkCacheShape(source.spec(), windows.length, options)) {
  Check(windows.count() > 0, "CalibrationStream: no windows");
  const int64_t per_chunk = WindowsPerChunk(windows.length, options);
  for (int64_t i = 0; i < std::min(per_chunk, windows.count()); ++i) {
    sequences_.emplace_back(cache_);
    steps_.push_back(sequences_.back().Append(windows.length, i * windows.length));
  }
  full_plan_ = backend.PlanBatch(exec, steps_);
  const auto last = static_cast<size_t>(windows.count() % per_chunk);
  if (last != 0) last_plan_ = backend.PlanBatch(exec, std::span(steps_).first(last));
  for (int64_t row = 0; row < tokens(); row += per_chunk * windows.length) {
    const int64_t rows = std::min(per_chunk * windows.length, tokens() - row);
    chunks_.push_back(
        {row, rows, rows == full_plan_->tokens() ? full_plan_.get() : last_plan_.get()});
  }

  const auto rows_of = [&](DType type, int64_t cols) {
    if (!options.activations_in_host_memory || cols == 0) {
      return ActivationRows(backend, exec, type, tokens(), cols);
    }
    return ActivationRows::OnHost(backend, exec, type, tokens(), cols,
                                  options.double_buffered ? chunks_.front().rows : 0);
  };
  residual_ = rows_of(DType::kF32, spec_.hidden);
  pending_ = rows_of(DType::kF32, BlockForward::PendingWidth(spec_));
  carried_ = rows_of(forward_.activation_type(), KeptWidth(spec_, options));
  Embedding embedding(backend, exec, source, options.compute);
  for (const Chunk& chunk : chunks_) {
    const auto ids =
        std::span(windows.ids)
            .subspan(static_cast<size_t>(chunk.first_row), static_cast<size_t>(chunk.rows));
    Workspace::Scope scope(exec.workspace);
    const Matrix residual = residual_.Fresh(chunk.first_row, chunk.rows, scope);
    embedding.Run(*chunk.plan, ids, residual);
    residual_.Store(chunk.first_row, residual);
  }
  source.checkpoint().Release(spec_.embedding);
}

bool CalibrationStream::Keeps(Site producer) const {
  return producer == Site::kAttentionIn ? options_.keep_attention : options_.keep_mlp;
}

Matrix CalibrationStream::FreshCarried(const BlockSpec& block, Site producer, const Chunk& chunk,
                                       Workspace::Scope& scope) {
  const Site consumer = producer == Site::kAttentionIn ? Site::kAttentionOut : Site::kMlpOut;
  const int64_t width = forward_.InputWidth(block, consumer);
  if (!Keeps(producer)) return scope.Take(forward_.activation_type(), chunk.rows, width);
  carried_.SetCols(width);
  return carried_.Fresh(chunk.first_row, chunk.rows, scope);
}

ConstMatrix CalibrationStream::ChunkInput(const BlockSpec& block, const BlockWeights& weights,
                                          Site site, const Chunk& chunk, Matrix residual,
                                          Workspace::Scope& scope) {
  if (!BlockForward::ReadsCarried(block, site)) {
    const Matrix scratch = scope.Take(forward_.activation_type(), chunk.rows, spec_.hidden);
    return forward_.Input(block, weights, site, residual, {}, scratch);
  }
  const Site producer = ProducerOf(site);
  if (Keeps(producer)) return carried_.Read(chunk.first_row, chunk.rows, scope);
  const Matrix carried = FreshCarried(block, producer, chunk, scope);
  Workspace::Scope inner(exec_.workspace);
  const ConstMatrix input = ChunkInput(block, weights, producer, chunk, residual, inner);
  forward_.Advance(block, weights, producer, ContextOf(chunk), input, residual, carried, {});
  return carried;
}

ConstMatrix CalibrationStream::Visited(const BlockSpec& block, const BlockWeights& weights,
                                       const SharedInput& input, const Chunk& chunk,
                                       Matrix residual, Workspace::Scope& scope) {
  if (input.site != Site::kMlpOut || !block.is_mixture()) {
    return ChunkInput(block, weights, input.site, chunk, residual, scope);
  }
  const Matrix activated =
      scope.Take(forward_.activation_type(), chunk.rows, block.LinearsAt(input).front()->in);
  Workspace::Scope inner(exec_.workspace);
  const ConstMatrix normalized = ChunkInput(block, weights, Site::kMlpIn, chunk, residual, inner);
  forward_.ActivateExpert(block, weights, input, normalized, activated);
  return activated;
}

void CalibrationStream::VisitInputs(const BlockSpec& block, const BlockWeights& weights,
                                    const SharedInput& input,
                                    const std::function<void(ConstMatrix x)>& visit) {
  for (const Chunk& chunk : chunks_) {
    Workspace::Scope scope(exec_.workspace);
    visit(Visited(block, weights, input, chunk, ResidualOf(chunk, scope), scope));
  }
}

std::vector<int64_t> CalibrationStream::CountRouted(const BlockSpec& block,
                                                    const BlockWeights& weights) {
  std::vector<int64_t> tokens(block.mixture.experts.size(), 0);
  for (const Chunk& chunk : chunks_) {
    Workspace::Scope scope(exec_.workspace);
    const ConstMatrix input =
        ChunkInput(block, weights, Site::kMlpIn, chunk, ResidualOf(chunk, scope), scope);
    const std::vector<ExpertTokens> routed = forward_.Route(block, weights, input);
    for (size_t e = 0; e < tokens.size(); ++e) tokens[e] += std::ssize(routed[e].rows);
  }
  return tokens;
}

void CalibrationStream::VisitBeside(
    CalibrationStream& full, const BlockSpec& block, const BlockWeights& weights,
    const BlockWeights& full_weights, const SharedInput& input,
    const std::function<void(int64_t, ConstMatrix, ConstMatrix)>& visit) {
  Check(full.chunks_.size() == chunks_.size() && full.tokens() == tokens(),
        "VisitBeside: streams of other windows");
  Check(!full.options_.keep_attention && !full.options_.keep_mlp,
        "VisitBeside: the full stream keeps nothing");
  for (size_t i = 0; i < chunks_.size(); ++i) {
    Workspace::Scope scope(exec_.workspace);
    const ConstMatrix x =
        Visited(block, weights, input, chunks_[i], ResidualOf(chunks_[i], scope), scope);
    const Chunk& chunk = full.chunks_[i];
    const Matrix residual = full.ResidualOf(chunk, scope);
    const ConstMatrix full_x = full.Visited(block, full_weights, input, chunk, residual, scope);
    visit(chunk.first_row, x, full_x);
    // What it hands to the next site is computed again there.
    if (BlockForward::ReadsCarried(block, input.site)) {
      full.AdvanceChunk(block, full_weights, input.site, chunk, full_x, residual, scope);
    }
  }
}

void CalibrationStream::AdvanceChunk(const BlockSpec& block, const BlockWeights& weights, Site site,
                                     const Chunk& chunk, ConstMatrix input, Matrix residual,
                                     Workspace::Scope& scope) {
  if (HandsOn(site)) {
    const Matrix carried = FreshCarried(block, site, chunk, scope);
    forward_.Advance(block, weights, site, ContextOf(chunk), input, residual, carried, {});
    if (Keeps(site)) carried_.Store(chunk.first_row, carried);
    return;
  }
  const bool begins = site == Site::kAttentionOut;  // what is pending, if something is
  const Matrix pending = begins ? pending_.Fresh(chunk.first_row, chunk.rows, scope)
                                : pending_.Read(chunk.first_row, chunk.rows, scope);
  forward_.Advance(block, weights, site, ContextOf(chunk), input, residual, {}, pending);
  if (begins && pending.cols > 0) return pending_.Store(chunk.first_row, pending);
  residual_.Store(chunk.first_row, residual);
}

void CalibrationStream::Advance(const BlockSpec& block, const BlockWeights& weights, Site site) {
  if (HandsOn(site) && !Keeps(site)) return;  // run again when its consumer asks
  if (site == Site::kMlpIn && block.is_mixture()) return;
  for (const Chunk& chunk : chunks_) {
    Workspace::Scope scope(exec_.workspace);
    const Matrix residual = ResidualOf(chunk, scope);
    const ConstMatrix input = ChunkInput(block, weights, site, chunk, residual, scope);
    AdvanceChunk(block, weights, site, chunk, input, residual, scope);
  }
}

void CalibrationStream::Probe(const BlockSpec& block, const BlockWeights& weights, int64_t windows,
                              const BlockVisitor& visitor) {
  Check(windows >= 1 && windows <= windows_.count(), "Probe: more windows than there are");
  const int64_t length = windows_.length;
  const int64_t per_chunk = std::ssize(steps_);
  std::vector<int32_t> rows;
  for (int64_t first = 0; first < windows; first += per_chunk) {
    const int64_t count = std::min(per_chunk, windows - first);
    rows.clear();
    for (int64_t i = first; i < first + count; ++i) {
      const int64_t row = i * windows_.count() / windows * length;
      for (int64_t t = 0; t < length; ++t) rows.push_back(static_cast<int32_t>(row + t));
    }
    const auto steps = std::span(steps_).first(static_cast<size_t>(count));
    ProbeChunk(block, weights, *backend_.PlanBatch(exec_, steps), rows, visitor);
  }
}

void CalibrationStream::ProbeChunk(const BlockSpec& block, const BlockWeights& weights,
                                   const BatchPlan& plan, std::span<const int32_t> rows,
                                   const BlockVisitor& visitor) {
  Workspace::Scope scope(exec_.workspace);
  const auto count = std::ssize(rows);
  const Matrix residual = scope.Take(DType::kF32, count, spec_.hidden);
  residual_.Gather(rows, residual);
  const DType type = forward_.activation_type();
  const Matrix normalized = scope.Take(type, count, spec_.hidden);
  const Matrix attended = scope.Take(type, count, forward_.InputWidth(block, Site::kAttentionOut));
  const Matrix activated =
      scope.Take(type, count, block.is_mixture() ? 0 : forward_.InputWidth(block, Site::kMlpOut));
  const Matrix pending = scope.Take(DType::kF32, count, BlockForward::PendingWidth(spec_));
  const BlockContext context{plan, 0, cache_.store(),
                             visitor.keys_values ? &visitor.keys_values : nullptr};
  for (const Site site : kSites) {
    const bool attention = site == Site::kAttentionIn || site == Site::kAttentionOut;
    const Matrix carried = attention ? attended : activated;
    const ConstMatrix input = forward_.Input(block, weights, site, residual, carried, normalized);
    const bool shared = site != Site::kMlpOut || !block.is_mixture();
    if (visitor.input && shared) visitor.input(site, input);
    if (site == Site::kMlpOut && !visitor.output) return;  // nobody looks at what follows
    forward_.Advance(block, weights, site, context, input, residual, carried, pending);
  }
  visitor.output(residual);
}

int64_t CalibrationStream::HeldBytes(const DecoderSpec& spec, int64_t tokens, int64_t window,
                                     const StreamOptions& options) {
  const KvShape cache = ChunkCacheShape(spec, window, options);
  const int64_t chunk = std::min(tokens, WindowsPerChunk(window, options) * window);
  const int64_t rows = !options.activations_in_host_memory ? tokens
                       : options.double_buffered           ? 2 * chunk
                                                           : 0;
  return rows * TokenBytes(spec, options) + KvBlockBytes(cache) * cache.blocks;
}

int64_t CalibrationStream::HostBytes(const DecoderSpec& spec, int64_t tokens,
                                     const StreamOptions& options) {
  return options.activations_in_host_memory ? tokens * TokenBytes(spec, options) : 0;
}

int64_t CalibrationStream::ScratchBytes(const DecoderSpec& spec, int64_t window,
                                        const StreamOptions& options) {
  const int64_t element = SizeOf(ActivationType(options.compute));
  const int64_t rows = WindowsPerChunk(window, options) * window;
  const bool fused = !spec.blocks.front().query_key_value.name.empty();  // then taken apart
  const int64_t attention =
      (spec.heads + 2 * spec.kv_heads) * spec.head_dim * SizeOf(DType::kF32) * (fused ? 2 : 1);
  const int64_t dense = WidestCarriedMlp(spec);
  const int64_t expert = WidestExpert(spec);
  // Of at most 1,024 rows at a time: gate, where it is not computed in place, and up; of experts
  // also their tokens and outputs.
  const bool in_place = element == SizeOf(DType::kF32) && spec.blocks.front().gate_up.name.empty();
  const int64_t gate_up = (in_place ? 1 : 2) * SizeOf(DType::kF32);
  const int64_t mlp =
      std::max(dense * gate_up, expert == 0 ? 0
                                            : expert * gate_up + spec.hidden * SizeOf(DType::kF32) +
                                                  (expert + spec.hidden) * element);
  // Of all rows: what is not kept; what an expert would read.
  const int64_t recomputed = std::max(options.keep_mlp ? 0 : dense, expert) * element +
                             (options.keep_attention ? 0 : spec.heads * spec.head_dim * element);
  // Of all rows as well: what comes from host memory, where there are no buffers for it.
  const bool uploads = options.activations_in_host_memory && !options.double_buffered;
  const int64_t uploaded = uploads ? TokenBytes(spec, options) : 0;
  return rows * (spec.hidden * element + recomputed + uploaded) +
         std::max(rows * attention, std::min<int64_t>(rows, 1024) * mlp);
}

}  // namespace quantmill
