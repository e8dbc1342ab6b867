// The configuration of AWQ files, which names the layout.
#include <nlohmann/json.hpp>

#include "formats/awq.h"
#include "formats/awq/layouts.h"
#include "formats/config_field.h"

namespace quantmill {
namespace {

QuantScheme ParseScheme(const ConfigField& top) {
  if (const auto bits = top.Integer("bits"); bits && *bits != kAwqBits) {
    top.Fail("bits", "is " + std::to_string(*bits) + "; awq files have 4");
  }
  if (!top.Bool("zero_point", true)) {
    top.Fail("zero_point", "is false: such files differ from tool to tool and cannot be read");
  }
  QuantScheme scheme;
  scheme.bits = kAwqBits;
  scheme.symmetric = false;
  scheme.group_size = top.Integer("group_size").value_or(scheme.group_size);
  if (scheme.group_size != QuantScheme::kPerChannel && scheme.group_size < 1) {
    top.Fail("group_size", "is " + std::to_string(scheme.group_size));
  }
  return scheme;
}

}  // namespace

std::unique_ptr<ArtifactReader> OpenAwq(const Checkpoint& checkpoint) {
  const std::string where = (checkpoint.folder() / "config.json").string();
  const ConfigField top(checkpoint.config().at("quantization_config"), "quantization_config",
                        where);
  const QuantScheme scheme = ParseScheme(top);
  const std::string version = top.Text("version", "gemm");
  if (version == "gemm") return OpenAwqGemm(checkpoint, scheme);
  if (version == "gemv") return OpenAwqGemv(checkpoint, scheme);
  if (version == "gemv_fast") return OpenAwqGemvFast(checkpoint, scheme);
  top.Fail("version", "is '" + version + "'; gemm, gemv and gemv_fast can be read");
}

}  // namespace quantmill
