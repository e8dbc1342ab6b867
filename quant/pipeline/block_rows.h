// Layers as rows of GGUF blocks: scales from the encoders of formats/gguf, codes from a solver.
#ifndef QUANTMILL_QUANT_PIPELINE_BLOCK_ROWS_H_
#define QUANTMILL_QUANT_PIPELINE_BLOCK_ROWS_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/gguf/block_types.h"
#include "quant/solve/solver.h"

namespace quantmill {

// Whether solvers choose the codes of the type's blocks: all that `quantize` writes.
bool IsSolved(GgmlType type);

// The grid of a type's blocks as solvers see it: symmetric integers on scales of any size, F16
// where each block stores its own; of MXFP4 and IQ4_NL, their numbers. REQUIRES: IsSolved.
QuantScheme SchemeOfBlocks(GgmlType type);

// Whether a QuantizedLinear of SchemeOfBlocks holds all that a block does (Q4_0, Q5_0, Q8_0,
// IQ4_NL, MXFP4). The others have offsets, or scales that are multiples of a common one:
// ChooseBlocks finds them.
bool HasOwnScales(GgmlType type);

// Rows of blocks whose codes are to be replaced, and their grid.
struct BlockChoice {
  std::vector<std::byte> rows;  // [out] of RowBytes(type, in)
  Grid grid;
};

// The blocks of least squared error, weighed by `importance` ([in], or empty: equally). weight:
// [out, in] F32, backend memory, finite; its rows fill blocks. Throws Error(kBadInput) for weights
// that the type's F16 scales do not reach.
BlockChoice ChooseBlocks(Backend& backend, Exec& exec, ConstMatrix weight, GgmlType type,
                         std::span<const float> importance);

// The rows with the codes of `linear`, which was solved on their grid.
void PutCodes(GgmlType type, const QuantizedLinear& linear, std::span<std::byte> rows);

// Rows of a type that HasOwnScales. `where`: the layer, in errors (RepackRow).
std::vector<std::byte> RepackRows(GgmlType type, const QuantizedLinear& linear,
                                  const std::string& where);

// [out, in] F32 in host memory: what a reader of the file gets.
Tensor DecodeRows(GgmlType type, std::span<const std::byte> rows, int64_t out, int64_t in);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_BLOCK_ROWS_H_
