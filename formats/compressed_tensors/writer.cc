// QuantizedLinear -> tensors and configuration. Reading is in reader.cc.
#include <nlohmann/json.hpp>

#include "formats/compressed_tensors.h"
#include "formats/compressed_tensors/config.h"
#include "formats/compressed_tensors/kv_scales.h"
#include "formats/compressed_tensors/layout.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

class Format final : public ArtifactWriterFormat {
 public:
  std::string_view name() const override { return "compressed-tensors"; }

  void CheckSupported(const QuantizedModule& module) const override {
    const auto refuse = [&](const std::string& why) {
      if (!why.empty()) throw Error(ErrorCode::kUsage, module.name, "compressed-tensors: " + why);
    };
    if (module.out <= 0 || module.in <= 0) {
      refuse("a weight of shape " + ShapeString(std::vector{module.out, module.in}));
    }
    const CompressedTensorsLayout& layout = LayoutOf(module.scheme);
    refuse(layout.Problem(module.scheme));
    refuse(layout.Refusal(module));
  }

  std::vector<TensorDeclaration> Declare(const QuantizedModule& module) const override {
    return LayoutOf(module.scheme).Declare(module);
  }

  void PackRows(const QuantizedModule& module, int64_t, const QuantizedLinear& rows,
                std::span<const TensorRows> to) const override {
    LayoutOf(module.scheme).PackRows(module, rows, to);
  }

  bool HasWords(const QuantizedModule& module) const override {
    return LayoutOf(module.scheme).HasWords();
  }

  void PackWords(const QuantizedModule& module, int64_t, const RowBand& band,
                 std::span<const TensorRows> to) const override {
    LayoutOf(module.scheme).PackWords(module, band, to);
  }

  void CheckSupportedKv(const KvScheme& kv) const override {
    if (kv.type == KvScheme::Type::kNone || kv.type == KvScheme::Type::kFp8) return;
    throw Error(ErrorCode::kUsage, "the cache of keys and values",
                "compressed-tensors: INT8 and INT4 caches are chosen where the model runs, not in "
                "its file; only fp8 has scales to store");
  }

  std::vector<TensorDeclaration> DeclareKv(const std::string& attention, const KvScheme& kv,
                                           int64_t kv_heads) const override {
    CheckSupportedKv(kv);
    return DeclareKvScales(attention, kv, kv_heads);
  }

  void WriteKv(const std::string& attention, const KvScales& scales,
               CheckpointWriter& writer) const override {
    WriteKvScales(attention, scales, writer);
  }

  nlohmann::json QuantizationConfig(std::span<const QuantizedModule> modules,
                                    std::span<const std::string> dense,
                                    const KvScheme& kv) const override {
    CheckSupportedKv(kv);
    return MakeCompressedTensorsConfig(modules, dense, kv);
  }
};

}  // namespace

const ArtifactWriterFormat& CompressedTensorsFormat() {
  static const Format format;
  return format;
}

}  // namespace quantmill
