// Every op's contract. A backend (reference, cpu, cuda) implements this table and nothing else; the
// layers above know no backend.
//
// Conventions, for all ops:
//  * Matrices are row-major views in the backend's own memory (Backend::Empty, or any host memory
//    for `reference` and `cpu`). Activations are [tokens, features]. "F32|BF16" lists the element
//    types an argument may have. Sizes may be zero. Shape or type mistakes are bugs: Check.
//  * Arguments do not alias, unless the contract says "in place".
//  * Ops are enqueued on exec.stream and may return before they ran; those that return values to
//    the host wait. Scratch comes from exec.workspace. Ops allocate nothing else.
//  * Results do not depend on the number of threads, and a row's result does not depend on how many
//    other rows are in the call: each output element is summed in an order fixed by its own shape
//    (reduction length) alone. Same build, backend and ISA: same bits.
//  * Accumulation is F32 unless stated. NaN and infinity propagate as IEEE arithmetic does.
#ifndef QUANTMILL_KERNELS_OPS_H_
#define QUANTMILL_KERNELS_OPS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/kv_format.h"
#include "kernels/core/matrix.h"
#include "kernels/core/scheme.h"
#include "kernels/workspace.h"

namespace quantmill {

// An ordered queue of work. The cpu backend runs each op before it returns.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Synchronize() = 0;
  // What is put on this stream from now on runs after what is on `other`, of the same backend, now.
  virtual void RunAfter(Stream& other) = 0;
};

// What every op runs with. One Exec is used by one host thread at a time; a device's backend may be
// used with several at once, each of its own thread.
struct Exec {
  Stream& stream;
  Workspace& workspace;
};

// How MatMul multiplies; products are summed in F32.
//   kF32     F32 numbers.
//   kBF16    inputs and weights are rounded to BF16 (RNE). It exists where
//            BackendInfo::compute_bf16 says so.
//   kBF16x3  F32 numbers, for many tokens at a time: where that is faster, each is taken as a sum
//            of up to three BF16 numbers, and the products that matter are summed: a product is
//            that of F32 to within 2^-23 (subnormal numbers count as zero), and a few tokens take
//            longer. It takes scratch of 6 bytes an input. Elsewhere (BackendInfo::splits_f32) it
//            is kF32.
enum class Compute : uint8_t { kF32, kBF16, kBF16x3 };

const char* NameOf(Compute compute);  // "f32", "bf16", "bf16x3"

// The activation type that feeds MatMul under `compute`.
constexpr DType ActivationType(Compute compute) {
  return compute == Compute::kBF16 ? DType::kBF16 : DType::kF32;
}

// The weight of one linear layer in a backend's own layout. Immutable, owned by the caller, made by
// Backend::PackDense or PackQuantized, used only with the backend that made it.
class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  virtual int64_t out() const = 0;
  virtual int64_t in() const = 0;
  virtual int64_t bytes() const = 0;
  virtual Compute compute() const = 0;
};

// ---- rounded inputs ----
// A weight whose QuantScheme names an input type is multiplied as servers do it (vLLM's kernels for
// compressed-tensors W8A8, FP8 and FP8 blocks). Each token's x is rounded on its own, absmax being
// taken over the token, or over each `input.group_size` of its inputs; F32 arithmetic:
//   kInt8 dynamic   scale = absmax / 127, code = clamp(rint(x * (127 / absmax))), 0 if absmax is 0
//   kInt8 static    code = clamp(rint(x / input_scale) + input_zero_point, -128, 127)
//   kFp8 dynamic    scale = max(absmax / 448, 1 / (448 * 512)), number = E4M3(x / scale)
//   kFp8 static     number = E4M3(x / input_scale)
// Inputs are cut into segments in which neither a scale of the weight nor one of x changes; of two
// group sizes, one is a multiple of the other. P, the sum over a segment of (code - zero) of x
// times (code - zero) or number of w, is exact for integers (I32; then rounded to F32) and an F32
// sum of exact products for numbers. Then, each operation rounded to F32, segments in order:
//   y (+)= sum_s (P_s * effective scale of w) * scale of x  + bias.
// A token with a NaN gets NaN everywhere that its scale reaches; so does one with an infinity whose
// scale is dynamic, or it gets infinities.
//
// Where the scales of groups are rounded as well (InputScheme::has_block_scales), x is rounded to
// number * scale, that to the type of x, and multiplied as if it had not been rounded. Of a group:
//   kF8E4M3   scale = E4M3(input_scale * (absmax / 6)) / input_scale
//   kF8E8M0   scale = 2^(e - 2) for kFp4, 2^(e - 8) for kFp8, 2^-126 at least, where 2^e is absmax
//             rounded down, or up from 1.75 * 2^e on
//   number = E2M1(x / scale) or E4M3(x / scale); 0 where the scale is 0
// A group with a NaN or an infinity is NaN. (compressed-tensors 0.20, calculate_qparams and
// generate_mx_scales; vLLM's ref_nvfp4_quant.)

enum class MatMulMode : uint8_t { kStore, kAdd };  // y = ..., or y += ...

// y[t] = gain' * (x[t] - mean) / sqrt(mean((x - mean)^2) + eps) + bias, gain' = gain + gain_offset;
// kRms takes mean = 0 and no bias.
enum class NormKind : uint8_t { kRms, kLayer };
struct NormParams {
  NormKind kind = NormKind::kRms;
  float eps = 1e-5f;
  float gain_offset = 0;  // 1 for Gemma
  ConstMatrix gain;       // [1, features] F32
  ConstMatrix bias;       // [1, features] F32, or empty
};

enum class Activation : uint8_t { kSilu, kGeluTanh, kGelu, kRelu };

// Rotary embedding of pairs (i, i + rotary_dim / 2) of each head, the Hugging Face convention:
//   angle = position * inv_freq[i];  cos and sin are multiplied by `amplitude` (yarn, longrope).
// Elements past rotary_dim are left alone.
struct RopeParams {
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;           // even, <= head_dim
  std::span<const float> inv_freq;  // host memory, rotary_dim / 2 values, alive during the call
  float amplitude = 1;
};

// Tokens of one sequence inside a batch. The step's tokens of all sequences lie one after another
// in the activation rows.
struct SequenceStep {
  int64_t first_row = 0;                 // row of the first token of this step
  int64_t tokens = 0;                    // tokens of this step; may be 0
  int64_t context = 0;                   // tokens already in the cache: position of the first one
  std::span<const int32_t> block_table;  // physical block of each 16 positions; host memory; covers
                                         // context + tokens positions
};

// Device-side description of one step, made once and used by all layers. Owns copies of what it
// needs (block tables included).
class BatchPlan {
 public:
  virtual ~BatchPlan() = default;
  virtual int64_t tokens() const = 0;               // rows of the step's activations
  virtual int64_t position(int64_t row) const = 0;  // of the row's token in its sequence
};

inline constexpr int64_t kKvBlockTokens = 16;

// A KvScheme other than kNone rounds each token's head of k and v on its own (post-rope), F32
// arithmetic; Attention reads the decoded values:
//   kFp8   number = E4M3(x / scale), clamped to 448; decoded: number * scale, given below
//   kInt8  scale = absmax / 127 of the head, code = rint(x * (127 / absmax)); code * scale
//   kInt4  the head is rotated first, then as kInt8 with 7 for 127
// The rotation is x = H x / sqrt(head_dim) with Sylvester's H, by butterflies (a + b, a - b) at
// distances 1, 2, 4, ..., then a product with the rounded 1 / sqrt(head_dim). Attention rotates
// the queries likewise and its result back. A head with a NaN or (integers) an infinity decodes
// to NaN.
struct KvShape {
  int64_t layers = 0;
  int64_t blocks = 0;  // physical blocks, shared by all sequences
  int64_t kv_heads = 0;
  int64_t head_dim = 0;       // kInt4: a power of two, at most 1024
  DType dtype = DType::kF32;  // F32|BF16, of KvScheme::Type::kNone
  KvScheme scheme = {};
  // kFp8 alone: [layers * kv_heads], or empty: 1.
  std::vector<float> key_scales = {};
  std::vector<float> value_scales = {};
};

// How a store of this shape keeps elements: as floats, or as codes of its scheme.
KvFormat FormatOf(const KvShape& shape);

// Why no store can have this head_dim under `type`, or nothing.
std::optional<std::string> UnsupportedKv(KvScheme::Type type, int64_t head_dim);

// Keys and values of all layers in blocks of 16 tokens; the layout is the backend's own.
class KvStore {
 public:
  virtual ~KvStore() = default;
  virtual const KvShape& shape() const = 0;
  virtual int64_t bytes() const = 0;
};
// Bytes of one block over all layers (the same for every backend): integers have an F32 scale for
// each token and head.
constexpr int64_t KvHeadBytes(const KvShape& s) {
  switch (s.scheme.type) {
    case KvScheme::Type::kNone:
      return s.head_dim * SizeOf(s.dtype);
    case KvScheme::Type::kFp8:
      return s.head_dim;
    case KvScheme::Type::kInt8:
      return s.head_dim + 4;
    case KvScheme::Type::kInt4:
      return (s.head_dim + 1) / 2 + 4;
  }
  return 0;
}
constexpr int64_t KvBlockBytes(const KvShape& s) {
  return 2 * s.layers * s.kv_heads * kKvBlockTokens * KvHeadBytes(s);
}

struct AttentionParams {
  int64_t heads = 0;  // a multiple of kv_heads; query head h reads kv head h / (heads / kv_heads)
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0;             // multiplies q . k
  int64_t sliding_window = 0;  // query p sees keys in (p - window, p]; 0: all keys <= p
  float softcap = 0;           // cap * tanh(score / cap); 0: off
  // ALiBi (Press et al. 2021): what each position of distance takes off the scores of a head, after
  // the soft cap. [heads], host memory, alive during the call; empty: off.
  std::span<const float> alibi_slopes = {};
};

// Of one row of logits against its target token. Logarithms are natural; the log-sum-exp is summed
// in F64.
struct TokenScore {
  double log_prob = 0;  // of the target
  int32_t top1 = 0;     // arg max (the lowest id on ties)
};
// KL(reference || test) = sum p_ref (log p_ref - log p_test), nats, summed in F64.
struct TokenComparison {
  TokenScore reference;
  TokenScore test;
  double kl = 0;
};

// A factorization of the damped Gram matrix (see Backend::FactorGram).
struct FactorResult {
  bool ok = false;
  int64_t failed_column = -1;  // in solve order: the first pivot that was not positive and finite
};

// One GPTQ solve. All matrices in the backend's memory.
struct GptqProblem {
  ConstMatrix weight;              // [out, in] F32, columns in their original order
  ConstMatrix factor;              // [in, in] F32: R of FactorGram, in solve order
  std::span<const int32_t> order;  // host memory: order[k] is the original column solved k-th
  QuantScheme scheme;
  ConstMatrix scales;       // [out, groups] F32, groups in the original column order
  ConstMatrix zero_points;  // [out, groups] I8; empty if symmetric
};

// What SearchGrid tries.
struct GridSearch {
  // Factors of the start grid's scale; 1 is tried besides.
  std::span<const float> coarse;
  // Added to the best factor so far, one pass after the other.
  std::span<const float> fine;
  bool mirror = false;  // each coarse factor also with the scale's sign flipped; symmetric integers
  float global_scale = 1;  // of scales that are stored times it (NVFP4)
};

// In which numbers a factorization runs.
enum class Precision : uint8_t { kF32, kF64 };

struct BackendInfo {
  std::string name;  // "cpu", "reference", "cuda"
  std::string
      isa;  // "amx", "avx512_bf16", "avx512", "avx2", "generic"; the compute capability on a GPU
  bool compute_bf16 = false;    // MatMul has a kBF16 path faster than kF32
  bool splits_f32 = false;      // kBF16x3 is another path than kF32
  bool attention_bf16 = false;  // Attention on a BF16 store, with BF16 outputs, is the faster one
  int threads = 1;              // host threads
  // Bytes of a device; 0: the backend's memory is the host's. Of these, what driver and libraries
  // take for themselves.
  int64_t memory = 0;
  int64_t memory_overhead = 0;
};

// What multiplies like `compute` when many tokens are taken at a time.
inline Compute ForManyTokens(Compute compute, const BackendInfo& backend) {
  return compute == Compute::kF32 && backend.splits_f32 ? Compute::kBF16x3 : compute;
}

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendInfo Info() const = 0;

  // ---- memory ----
  virtual std::unique_ptr<Stream> NewStream() = 0;
  // Uninitialized memory. Throws Error(kEnvironment) when there is none.
  virtual Tensor Empty(DType dtype, int64_t rows, int64_t cols) = 0;
  // Uninitialized host memory from and to which copies are fastest, and run beside what the host
  // does (page-locked, of a device). Throws Error(kEnvironment) when there is none.
  virtual Tensor EmptyOnHost(DType dtype, int64_t rows, int64_t cols) {
    return HostTensor(dtype, rows, cols);
  }
  // From now on a device's memory counts as full when BackendInfo::memory_overhead and what is
  // allocated come to `bytes`; 0: when the device's own is. Host memory has no limit.
  virtual void LimitMemory([[maybe_unused]] int64_t bytes) {}
  // The most of a device's memory that was ever taken, memory_overhead included; 0 for host memory.
  virtual int64_t PeakMemory() const { return 0; }
  // Same shape; converts between F32, F16 and BF16 (RNE) where the types differ, copies otherwise.
  // `host` must stay alive until the stream is synchronized.
  virtual void Upload(Exec& exec, ConstMatrix host, Matrix device) = 0;
  virtual void Download(Exec& exec, ConstMatrix device, Matrix host) = 0;  // waits
  // The same without waiting. `host`: of EmptyOnHost and of `device`'s type; alive, and not to be
  // touched, until the stream is synchronized.
  virtual void DownloadLater(Exec& exec, ConstMatrix device, Matrix host) {
    Download(exec, device, host);
  }
  // All bytes 0.
  virtual void Zero(Exec& exec, Matrix x) = 0;

  // ---- weights ----
  // weight: [out, in] F32|F16|BF16 in host memory, not needed after the call. Under kF32 the
  // elements are kept exactly (in their own type); under kBF16 they are rounded to BF16.
  virtual std::unique_ptr<PackedLinear> PackDense(Exec& exec, ConstMatrix weight,
                                                  Compute compute) = 0;
  // Keeps the codes packed, of any QuantScheme; MatMul uses w = (code - zero_point) * scale, or
  // number(code) * effective scale, rounded to F32, and under kBF16 further to BF16, so the result
  // equals PackDense of Dequantize bit for bit. Where scheme.input is not kNone, MatMul rounds its
  // inputs as well ("rounded inputs" below), in either compute type.
  virtual std::unique_ptr<PackedLinear> PackQuantized(Exec& exec, const QuantizedLinear& linear,
                                                      Compute compute) = 0;

  // ---- forward ----
  // out[t] = scale * table[ids[t]].  table: [vocab, hidden] F32|F16|BF16 in host memory (it may be
  // a mapped file).  ids: host memory, each in [0, vocab) (Check).  out: [tokens, hidden] F32.
  virtual void EmbedRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, float scale,
                         Matrix out) = 0;
  // out[t] += table[ids[t]], table being in the backend's memory; of the same types and limits.
  virtual void AddRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, Matrix out) = 0;
  // out = x, rounded to the type of out.  x: [tokens, features] F32.  out: same shape, F32|BF16.
  virtual void Convert(Exec& exec, ConstMatrix x, Matrix out) = 0;
  // x: [tokens, features] F32.  out: [tokens, features] F32|BF16; in place when F32.
  virtual void Norm(Exec& exec, ConstMatrix x, const NormParams& params, Matrix out) = 0;
  // y[t, o] (+)= sum_i x[t, i] * w[o, i] + bias[o].  x: [tokens, in] of
  // ActivationType(w.compute()). bias: [1, out] F32 or empty.  y: [tokens, out] F32|BF16 (BF16 only
  // with kStore).
  virtual void MatMul(Exec& exec, ConstMatrix x, const PackedLinear& w, ConstMatrix bias,
                      MatMulMode mode, Matrix y) = 0;
  // In place on x: [tokens, heads * head_dim] F32; positions come from the plan.
  virtual void Rope(Exec& exec, const BatchPlan& plan, const RopeParams& params, Matrix x) = 0;
  // out = activation(gate) * up.  gate, up: [tokens, ffn] F32.  out: [tokens, ffn] F32|BF16; may be
  // gate itself when F32.  An empty `up` stands for ones (plain MLP).
  virtual void GatedActivation(Exec& exec, Activation activation, ConstMatrix gate, ConstMatrix up,
                               Matrix out) = 0;
  // out[i] = x[rows[i]].  x: [tokens, features] F32|BF16.  rows: host memory, each in [0, tokens)
  // (Check).  out: [rows, features] of x's type.
  virtual void GatherRows(Exec& exec, ConstMatrix x, std::span<const int32_t> rows, Matrix out) = 0;
  // y[rows[i]] += factors[i] * x[i].  x: [rows, features] F32.  rows: host memory, each in [0,
  // tokens) (Check), no two equal.  factors: host memory, one a row.  y: [tokens, features] F32.
  virtual void ScatterAdd(Exec& exec, ConstMatrix x, std::span<const int32_t> rows,
                          std::span<const float> factors, Matrix y) = 0;

  // ---- attention on the paged cache ----
  // Throws Error(kEnvironment) when memory does not suffice. REQUIRES: UnsupportedKv has nothing.
  virtual std::unique_ptr<KvStore> NewKvStore(Exec& exec, const KvShape& shape) = 0;
  // Copies one physical block, all layers (copy on write of a shared, partly filled block).
  virtual void CopyKvBlock(Exec& exec, KvStore& store, int32_t from, int32_t to) = 0;
  virtual std::unique_ptr<BatchPlan> PlanBatch(Exec& exec,
                                               std::span<const SequenceStep> sequences) = 0;
  // Stores the step's keys and values (after Rope) at their positions.
  // k, v: [tokens, kv_heads * head_dim] F32; rounded as the store's shape says.
  virtual void AppendKv(Exec& exec, const BatchPlan& plan, int64_t layer, ConstMatrix k,
                        ConstMatrix v, KvStore& store) = 0;
  // out[t, h] = sum_p softmax_p(scale * q[t, h] . k[p]) v[p] over the positions p <= position(t) of
  // t's own sequence; scores are capped and shifted as `params` says.  q: [tokens, heads *
  // head_dim] F32.  out: same shape, F32|BF16. Keys are visited in tiles aligned to absolute
  // positions, so a token's result is the same in prefill and in decode.
  // Where out and the store are both BF16, a backend may multiply in BF16: the queries, times
  // `scale`, and the weights (the largest of which is about 1) are rounded to it.
  virtual void Attention(Exec& exec, const BatchPlan& plan, int64_t layer,
                         const AttentionParams& params, ConstMatrix q, const KvStore& store,
                         Matrix out) = 0;

  // ---- scores; these wait ----
  // logits: [tokens, vocab] F32.  targets: [tokens], each in [0, vocab).  scores: [tokens], host.
  virtual void ScoreLogits(Exec& exec, ConstMatrix logits, std::span<const int32_t> targets,
                           std::span<TokenScore> scores) = 0;
  virtual void CompareLogits(Exec& exec, ConstMatrix reference, ConstMatrix test,
                             std::span<const int32_t> targets,
                             std::span<TokenComparison> scores) = 0;
  // logits = cap * tanh(logits / cap), in place.
  virtual void SoftCap(Exec& exec, float cap, Matrix logits) = 0;

  // ---- calibration statistics ----
  // gram += x^T x, upper triangle (i <= j) only; the rest is untouched.
  // x: [tokens, in] F32|BF16.  gram: [in, in] F32.  Rows are summed in chunks of fixed length; the
  // chunks are added to gram in order.
  virtual void AddGram(Exec& exec, ConstMatrix x, Matrix gram) = 0;
  // range[0, i] = min(range[0, i], min_t x[t, i]), range[1, i] likewise with max; start with
  // infinity and -infinity. A NaN makes both of its column NaN. x: [tokens, in] F32|BF16.
  // range: [2, in] F32.
  virtual void AddRange(Exec& exec, ConstMatrix x, Matrix range) = 0;
  // cross += x^T (y - x), all of it. x, y: [tokens, in] F32|BF16, both of one type; the difference
  // is rounded to it where products are of BF16. cross: [in, in] F32. Order of sums as AddGram.
  virtual void AddCross(Exec& exec, ConstMatrix x, ConstMatrix y, Matrix cross) = 0;

  // ---- solving (algorithms.md section 1) ----
  // Smallest grid that covers each group of each row (formats.md section 4.3):
  //   symmetric: scale = absmax / ((max_code - min_code) / 2);
  //   asymmetric: range widened to hold 0, scale = (hi - lo) / (max_code - min_code),
  //               zero_point = clamp(rint(min_code - lo / scale)), with the unrounded scale.
  // (floats: absmax / the largest number.) The scale is then rounded to scheme.scale_dtype (F32,
  // F16 or BF16 here); a scale that rounds to 0 becomes 1 where the group is all zero, and the
  // type's smallest normal otherwise. Each row has its own scales, whatever scheme.row_block says.
  // weight: [out, in] F32.  scales: [out, groups] F32.  zero_points: [out, groups] I8 or empty.
  virtual void MinMaxGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme, Matrix scales,
                          Matrix zero_points) = 0;
  // codes[o, i] = clamp(rint(w / scale) + zero_point, min_code, max_code), or the nearest float
  // number to w / scale (NearestCode of scheme.h).  codes: [out, in] I8.  scales here and below are
  // effective ones (divided by global_scale) and may be negative.
  // A NaN weight is a bug of the caller (weights are checked when read): Check.
  virtual void RoundToGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                           ConstMatrix scales, ConstMatrix zero_points, Matrix codes) = 0;
  // Chooses a scale (and zero point) for each group of each row: the candidate for which the sum
  // over blocks of dB^T, d = q - w, is least; the earlier one on ties. On entry scales and
  // zero_points hold a grid (MinMaxGrid); it is the first candidate. Then: every coarse factor
  // (with both signs under `mirror`); asymmetric: neighbours of the zero point; then the fine
  // offsets. Scales of candidates are rounded to scheme.scale_dtype (times global_scale) before
  // they are tried; what rounds to 0 or past the type is passed over. Errors are summed in F32.
  // weight: [out, in] F32.  blocks: [in, block] F32: row i holds H[i, b .. b + block) of the block
  // that column i lies in; blocks begin at multiples of `block` and end where a group or the row
  // ends, so block divides the group size, or there is one group. block is at most 128.
  virtual void SearchGrid(Exec& exec, ConstMatrix weight, ConstMatrix blocks,
                          const QuantScheme& scheme, const GridSearch& search, Matrix scales,
                          Matrix zero_points) = 0;
  // Symmetric permutation and completion, in place: afterwards the full square holds
  // gram[order[i], order[j]].  gram: [in, in] F32, upper triangle filled.
  virtual void PermuteGram(Exec& exec, std::span<const int32_t> order, Matrix gram) = 0;
  // Writes R into the upper triangle (diagonal included), R upper with
  //   (H + damp I)^-1 = R^T R,
  // H being the strict lower triangle mirrored, with diagonal `diagonal` ([1, in] F32). H = U U^T
  // by Cholesky from the last column up, R = U^-1: no explicit inverse of H. The strict lower
  // triangle is not written, so a failed call can be repeated with another damp. kF64 takes another
  // [in, in] F64 and several times as long; R is rounded to F32 at the end. Waits.
  virtual FactorResult FactorGram(Exec& exec, ConstMatrix diagonal, float damp, Precision precision,
                                  Matrix gram) = 0;
  // x = x (H + damp I)^-1 = x R^T R, in place, R being the upper triangle of `factor` (FactorGram)
  // in the order of `order`.  x: [rows, in] F32, columns in their original order.
  virtual void SolveGram(Exec& exec, ConstMatrix factor, std::span<const int32_t> order,
                         Matrix x) = 0;
  // Solves all rows: for k in solve order, code of column order[k] by RoundToGrid's formula from
  // the current weight w_k; e = (w_k - q_k) / R[k, k]; w_j -= e * R[k, j] for j > k. codes: [out,
  // in] I8, columns in their original order.  loss: [1, out] F32, sum_k e_k^2, which is the row's
  // tr(dw (H + damp I) dw^T).
  virtual void GptqSolve(Exec& exec, const GptqProblem& problem, Matrix codes, Matrix loss) = 0;
  // Coordinate descent on the codes: lowers (q - w) G (q - w)^T row by row, one column of
  // problem.order after the other, `sweeps` times: each column takes the code that is best given
  // all others (that nearest to q_k - (G (q - w))_k / G_kk). G: the strict lower triangle of
  // problem.factor with `diagonal` ([1, in] F32), both in solve order; columns with diagonal 0 are
  // left as they are.  codes: [out, in] I8, in place.
  virtual void RefineCodes(Exec& exec, const GptqProblem& problem, ConstMatrix diagonal, int sweeps,
                           Matrix codes) = 0;
  // result[o] = delta[o] G delta[o]^T.  delta: [out, in] F32.  gram: [in, in] F32, of which the
  // strict lower triangle and `diagonal` are read.  result: [1, out] F32.
  virtual void QuadraticForm(Exec& exec, ConstMatrix delta, ConstMatrix gram, ConstMatrix diagonal,
                             Matrix result) = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_OPS_H_
