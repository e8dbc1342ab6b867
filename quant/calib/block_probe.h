// What calibration tokens show of a whole block before any of its layers is solved, and what other
// weights would do to the block's output.
#ifndef QUANTMILL_QUANT_CALIB_BLOCK_PROBE_H_
#define QUANTMILL_QUANT_CALIB_BLOCK_PROBE_H_

#include <cstdint>
#include <map>
#include <vector>

#include "kernels/ops.h"
#include "quant/calib/calibration_stream.h"

namespace quantmill {

// The start of a range, [2, columns] F32 in the backend's memory (Backend::AddRange).
Tensor EmptyRange(Backend& backend, Exec& exec, int64_t columns);

// Of what some linears of a block read.
struct ProbedInputs {
  int64_t tokens = 0;
  Tensor gram;                // [in, in] F32, backend memory, upper triangle: sum of x^T x
  std::vector<float> lo, hi;  // [in]: least and largest value of each input
  Tensor sample;              // [sample tokens, in] F32, host: evenly spread tokens
};
struct ProbedBlock {
  std::map<SharedInput, ProbedInputs> inputs;  // all but those of a mixture's kMlpOut
  // Of a mixture: the input of kMlpIn, [tokens, hidden] of the activation type, backend memory.
  Tensor mixture_input;
};

// Runs the block on `windows` windows (CalibrationStream::Probe). sample_tokens: about how many
// inputs to keep of each; 0: none. Sums go window by window, so that they do not depend on how many
// run at a time. Throws Error(kBadInput) naming block and site if an input is not finite.
ProbedBlock ProbeInputs(Backend& backend, Exec& exec, CalibrationStream& stream,
                        const BlockSpec& block, const BlockWeights& weights, int64_t windows,
                        int64_t sample_tokens);
// The same for one input of a mixture's kMlpOut, with `mixture_input` of ProbeInputs: the Gram
// matrices of many experts would not fit beside each other.
ProbedInputs ProbeExpert(Backend& backend, Exec& exec, CalibrationStream& stream,
                         const BlockSpec& block, const BlockWeights& weights,
                         const SharedInput& input, ConstMatrix mixture_input,
                         int64_t sample_tokens);

// The largest magnitudes of keys (after rope) and values, by key-value head.
class KeyValueRange {
 public:
  KeyValueRange(Backend& backend, Exec& exec, int64_t kv_heads, int64_t head_dim);
  void Add(ConstMatrix keys, ConstMatrix values);  // a KeyValueObserver
  // [kv_heads] each; 0 before the first token.
  std::vector<float> KeyAbsMax() const { return AbsMaxByHead(keys_); }
  std::vector<float> ValueAbsMax() const { return AbsMaxByHead(values_); }

 private:
  std::vector<float> AbsMaxByHead(const Tensor& range) const;

  Backend& backend_;
  Exec& exec_;
  int64_t kv_heads_;
  int64_t head_dim_;
  Tensor keys_, values_;  // [2, kv_heads * head_dim] F32: Backend::AddRange
};

// The output of a block with given weights, and how far that of other weights is from it.
class OutputProbe {
 public:
  // Runs `dense` and keeps its output, [windows * length, hidden] F32 in host memory.
  OutputProbe(Backend& backend, Exec& exec, CalibrationStream& stream, const BlockSpec& block,
              const BlockWeights& dense, int64_t windows);
  // Mean over tokens of the squared difference, summed over the hidden width.
  double Error(const BlockWeights& weights);

 private:
  Backend& backend_;
  Exec& exec_;
  CalibrationStream& stream_;
  const BlockSpec& block_;
  int64_t windows_;
  std::vector<float> reference_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_CALIB_BLOCK_PROBE_H_
