// A small Llama checkpoint and an artifact made from it, written with formats/ alone, and the means
// to damage them. Used by the tests beside this file.
#ifndef QUANTMILL_TESTS_QUANT_VERIFY_TINY_ARTIFACT_H_
#define QUANTMILL_TESTS_QUANT_VERIFY_TINY_ARTIFACT_H_

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "kernels/core/scheme.h"

namespace quantmill::test {

struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};
using TensorMap = std::map<std::string, StoredTensor>;

// Folders `dense` and `artifact` under a temporary folder that dies with the object. Two blocks,
// seven linear layers each, a tied embedding, three norms, two side files, and a quantmill.json
// whose errors and hashes are right.
class TinyArtifact {
 public:
  enum class Schemes {
    kPacked,  // w4 g8 symmetric, F16 scales
    kMixed    // MixedScheme, and an FP8 cache with a scale for each head
  };
  explicit TinyArtifact(Schemes schemes = Schemes::kPacked);
  ~TinyArtifact();
  TinyArtifact(const TinyArtifact&) = delete;
  TinyArtifact& operator=(const TinyArtifact&) = delete;

  std::filesystem::path dense() const { return root_ / "dense"; }
  std::filesystem::path artifact() const { return root_ / "artifact"; }
  static const std::vector<std::string>& Modules();  // the fourteen

  // Reads all tensors of a folder, lets `change` work on them, and writes the file again.
  static void ChangeTensors(const std::filesystem::path& folder,
                            const std::function<void(TensorMap&)>& change);
  // The same for a JSON file of the artifact.
  void ChangeJson(const std::string& file,
                  const std::function<void(nlohmann::json&)>& change) const;

 private:
  void WriteDense();
  void WriteArtifact(Schemes schemes);

  std::filesystem::path root_;
};

// q, k, v: INT8, inputs per token; o: FP8 per tensor, static inputs; gate, up: NVFP4; down: FP8 in
// blocks of 8 by 8.
QuantScheme MixedScheme(const std::string& module);

// Every group's largest magnitude on the largest code. weight: [out, in] F16 bits.
QuantizedLinear RoundToNearest(const StoredTensor& weight, const QuantScheme& scheme);

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_VERIFY_TINY_ARTIFACT_H_
