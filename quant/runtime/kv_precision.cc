#include "quant/runtime/kv_precision.h"

namespace quantmill {
namespace {

using Type = KvScheme::Type;

bool StoresScales(const ModelSource& source) { return source.kv_scheme().type == Type::kFp8; }

// One value for all heads, or one for each.
void AppendScales(const std::vector<float>& scales, int64_t kv_heads, std::vector<float>& to) {
  for (int64_t head = 0; head < kv_heads; ++head) {
    to.push_back(scales.size() == 1 ? scales[0] : scales[static_cast<size_t>(head)]);
  }
}

}  // namespace

const std::vector<std::string>& KvPrecisionNames() {
  static const std::vector<std::string> names = {"auto", "f32", "bf16", "fp8", "int8", "int4"};
  return names;
}

KvPrecision KvPrecisionNamed(const std::string& name, const ModelSource& source) {
  KvPrecision kv;
  if (name == "auto") {
    kv.scheme = source.kv_scheme();
  } else if (name == "bf16") {
    kv.dtype = DType::kBF16;
  } else if (name == "fp8") {
    kv.scheme = StoresScales(source) ? source.kv_scheme() : KvScheme{Type::kFp8, false};
  } else if (name == "int8") {
    kv.scheme.type = Type::kInt8;
  } else if (name == "int4") {
    kv.scheme.type = Type::kInt4;
  } else {
    Check(name == "f32", "KvPrecisionNamed: unknown name");
  }
  if (const auto reason = UnsupportedKv(kv.scheme.type, source.spec().head_dim)) {
    throw Error(ErrorCode::kUsage, "--kv-cache",
                source.path() + ": " + *reason + "; use int8 or fp8");
  }
  return kv;
}

std::string Describe(const KvPrecision& kv, const ModelSource& source) {
  switch (kv.scheme.type) {
    case Type::kNone:
      return kv.dtype == DType::kF32 ? "f32" : "bf16";
    case Type::kFp8:
      if (!StoresScales(source)) return "fp8 with scales of 1";
      return kv.scheme.per_head ? "fp8 with the artifact's scales of each head"
                                : "fp8 with the artifact's scales";
    case Type::kInt8:
      return "int8 per token and head";
    case Type::kInt4:
      return "int4 per token and head, rotated";
  }
  return "?";
}

DType FastCacheType(const BackendInfo& backend, Compute compute) {
  return backend.attention_bf16 ? ActivationType(compute) : DType::kF32;
}

KvShape KvShapeOf(const ModelSource& source, const KvPrecision& kv) {
  const DecoderSpec& spec = source.spec();
  KvShape shape;
  shape.layers = spec.layers();
  shape.kv_heads = spec.kv_heads;
  shape.head_dim = spec.head_dim;
  shape.dtype = kv.dtype;
  shape.scheme = kv.scheme;
  if (kv.scheme.type != Type::kFp8 || !StoresScales(source)) return shape;
  for (const BlockSpec& block : spec.blocks) {
    const KvScales scales = source.ReadKvScales(block);
    AppendScales(scales.key, spec.kv_heads, shape.key_scales);
    AppendScales(scales.value, spec.kv_heads, shape.value_scales);
  }
  return shape;
}

}  // namespace quantmill
