// Runs of verify on a tiny artifact, and what the tests do to it.
#ifndef QUANTMILL_TESTS_QUANT_VERIFY_VERIFY_RUN_H_
#define QUANTMILL_TESTS_QUANT_VERIFY_VERIFY_RUN_H_

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "quant/verify/verify_artifact.h"
#include "tiny_artifact.h"

namespace quantmill::test {

inline constexpr const char* kUp = "model.layers.1.mlp.up_proj";
inline constexpr const char* kGate = "model.layers.1.mlp.gate_proj";

// "place: what" of every problem.
inline std::vector<std::string> Lines(const VerifyReport& report) {
  std::vector<std::string> lines;
  lines.reserve(report.problems.size());
  for (const Problem& problem : report.problems) {
    lines.push_back(problem.where + ": " + problem.what);
  }
  return lines;
}

inline VerifyReport Verify(const TinyArtifact& tiny, int threads = 2) {
  ThreadPool pool(threads);
  const ModelSource reference = ModelSource::Open(tiny.dense().string());
  return VerifyArtifact(tiny.artifact().string(), &reference, pool, {});
}

inline VerifyReport VerifyAlone(const TinyArtifact& tiny) {
  ThreadPool pool(2);
  return VerifyArtifact(tiny.artifact().string(), nullptr, pool, {});
}

// A scale of kUp, as F16 bits.
inline void SetScale(const TinyArtifact& tiny, F16 value) {
  TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
    std::memcpy(tensors.at(std::string(kUp) + ".weight_scale").bytes.data() + 6, &value, 2);
  });
}

inline void RemoveRecord(const TinyArtifact& tiny) {
  std::filesystem::remove(tiny.artifact() / "quantmill.json");
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_VERIFY_VERIFY_RUN_H_
