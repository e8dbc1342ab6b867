// The shapes and types of each op's arguments, as ops.h states them, for every backend: a mistake
// in them is a bug of the caller (Check). What a single backend limits further, it checks itself.
#ifndef QUANTMILL_KERNELS_OP_CHECKS_H_
#define QUANTMILL_KERNELS_OP_CHECKS_H_

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace quantmill {

// ---- forward ----
void CheckEmbedRows(ConstMatrix table, std::span<const int32_t> ids, ConstMatrix out);
void CheckAddRows(ConstMatrix table, std::span<const int32_t> ids, ConstMatrix out);
void CheckConvert(ConstMatrix x, ConstMatrix out);
void CheckNorm(ConstMatrix x, const NormParams& params, ConstMatrix out);
void CheckMatMul(ConstMatrix x, const PackedLinear& w, ConstMatrix bias, MatMulMode mode,
                 ConstMatrix y);
void CheckRope(const BatchPlan& plan, const RopeParams& params, ConstMatrix x);
void CheckGatedActivation(ConstMatrix gate, ConstMatrix up, ConstMatrix out);
void CheckGatherRows(ConstMatrix x, std::span<const int32_t> rows, ConstMatrix out);
void CheckScatterAdd(ConstMatrix x, std::span<const int32_t> rows, std::span<const float> factors,
                     ConstMatrix y);

// ---- attention on the paged cache ----
void CheckNewKvStore(const KvShape& shape);
void CheckCopyKvBlock(const KvShape& shape, int32_t from, int32_t to);
// One step of PlanBatch, after `rows` rows of steps before it. Returns how many entries of its
// block table it uses.
int64_t CheckSequenceStep(const SequenceStep& step, int64_t rows);
void CheckAppendKv(const BatchPlan& plan, const KvShape& shape, int64_t layer, ConstMatrix k,
                   ConstMatrix v);
void CheckAttention(const BatchPlan& plan, const KvShape& shape, int64_t layer,
                    const AttentionParams& params, ConstMatrix q, ConstMatrix out);

// ---- scores ----
void CheckScoreLogits(ConstMatrix logits, std::span<const int32_t> targets,
                      std::span<const TokenScore> scores);
void CheckCompareLogits(ConstMatrix reference, ConstMatrix test, std::span<const int32_t> targets,
                        std::span<const TokenComparison> scores);
void CheckSoftCap(float cap, ConstMatrix logits);

// ---- calibration statistics ----
void CheckAddGram(ConstMatrix x, ConstMatrix gram);
void CheckAddRange(ConstMatrix x, ConstMatrix range);
void CheckAddCross(ConstMatrix x, ConstMatrix y, ConstMatrix cross);

// ---- solving ----
void CheckMinMaxGrid(ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
                     ConstMatrix zero_points);
void CheckRoundToGrid(ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
                      ConstMatrix zero_points, ConstMatrix codes);
void CheckSearchGrid(ConstMatrix weight, ConstMatrix blocks, const QuantScheme& scheme,
                     const GridSearch& search, ConstMatrix scales, ConstMatrix zero_points);
void CheckPermuteGram(std::span<const int32_t> order, ConstMatrix gram);
void CheckFactorGram(ConstMatrix diagonal, ConstMatrix gram);
void CheckSolveGram(ConstMatrix factor, std::span<const int32_t> order, ConstMatrix x);
void CheckGptqSolve(const GptqProblem& problem, ConstMatrix codes, ConstMatrix loss);
void CheckRefineCodes(const GptqProblem& problem, ConstMatrix diagonal, ConstMatrix codes);
void CheckQuadraticForm(ConstMatrix delta, ConstMatrix gram, ConstMatrix diagonal,
                        ConstMatrix result);

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_OP_CHECKS_H_
