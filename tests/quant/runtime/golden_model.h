// The golden models of make_golden.py, and runs of them.
#ifndef QUANTMILL_TESTS_QUANT_RUNTIME_GOLDEN_MODEL_H_
#define QUANTMILL_TESTS_QUANT_RUNTIME_GOLDEN_MODEL_H_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "quant/runtime/decoder_model.h"
#include "tests/support/backends.h"

namespace quantmill::test {

// Tests run in the source root.
inline std::string GoldenFolder(const std::string& name) {
  return "tests/quant/runtime/golden/" + name;
}

template <typename T>
std::vector<T> ReadTensor(const SafetensorsFile& file, const std::string& name) {
  const std::span<const std::byte> bytes = file.Bytes(*file.Find(name));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

struct Expected {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [ids, vocab]
};
inline Expected ReadExpected(const std::string& name) {
  const auto file = SafetensorsFile::Open(GoldenFolder(name) + "/expected.safetensors");
  return {ReadTensor<int32_t>(file, "ids"), ReadTensor<float>(file, "logits")};
}

// Logits of all tokens, computed in steps of the given numbers of tokens (the last repeats).
inline std::vector<float> RunInSteps(BackendRun& run, DecoderModel& model,
                                     const std::vector<int32_t>& ids,
                                     const std::vector<int64_t>& steps) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const int64_t vocab = model.spec().vocab;
  std::vector<float> all(static_cast<size_t>(tokens * vocab));
  KvCache cache = model.NewCache(tokens);
  KvSequence sequence(cache);
  size_t step_index = 0;
  for (int64_t done = 0; done < tokens;) {
    const int64_t count = std::min(steps[std::min(step_index++, steps.size() - 1)], tokens - done);
    const SequenceStep step = sequence.Append(count, 0);
    const auto plan = run.backend().PlanBatch(run.exec(), {&step, 1});
    Tensor hidden = run.Empty(ActivationType(model.compute()), count, model.spec().hidden);
    Tensor logits = run.Empty(DType::kF32, count, vocab);
    model.Forward(*plan,
                  std::span(ids).subspan(static_cast<size_t>(done), static_cast<size_t>(count)),
                  cache, hidden);
    model.Logits(hidden, logits);
    run.backend().Download(run.exec(), logits,
                           MutableViewOf(all.data() + done * vocab, count, vocab));
    done += count;
  }
  return all;
}

inline double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_RUNTIME_GOLDEN_MODEL_H_
