#include "formats/compressed_tensors/layout.h"

#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {

const TensorInfo& ModuleTensors::Info(std::string_view suffix) const {
  const std::string name = Name(suffix);
  if (!checkpoint_.Has(name)) {
    throw Error(ErrorCode::kBadInput, checkpoint_.folder().string(),
                "has no tensor '" + name + "', which its module needs");
  }
  return checkpoint_.Info(name);
}

std::span<const std::byte> ModuleTensors::Expect(std::string_view suffix, std::string_view dtype,
                                                 const std::vector<int64_t>& shape) const {
  const TensorInfo& info = Info(suffix);
  if (info.dtype != dtype || info.shape != shape) {
    Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                     std::string(dtype) + " " + ShapeString(shape));
  }
  return checkpoint_.Bytes(info.name);
}

std::pair<int64_t, int64_t> ModuleTensors::ExpectMatrix(std::string_view suffix,
                                                        std::string_view dtype) const {
  constexpr int64_t kMax = int64_t{1} << 28;
  const TensorInfo& info = Info(suffix);
  if (info.dtype != dtype || info.shape.size() != 2) {
    Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                     std::string(dtype) + " of two dimensions");
  }
  for (const int64_t size : info.shape) {
    if (size < 1 || size > kMax) {
      Fail(suffix, "has the impossible shape " + ShapeString(info.shape));
    }
  }
  return {info.shape[0], info.shape[1]};
}

void ModuleTensors::Fail(std::string_view suffix, const std::string& what) const {
  throw Error(ErrorCode::kBadInput, checkpoint_.Location(Name(suffix)), what);
}

const CompressedTensorsLayout& LayoutOf(const QuantScheme& scheme) {
  if (scheme.code_type == CodeType::kFp4) return Fp4Layout();
  const bool packed =
      scheme.code_type == CodeType::kInt && scheme.input.type == InputScheme::Type::kNone;
  return packed ? PackedLayout() : PlainLayout();
}

std::string_view StoredScaleType(const QuantScheme& scheme) {
  return NameOf(scheme.scale_dtype == DType::kF8E8M0 ? DType::kU8 : scheme.scale_dtype);
}

std::vector<float> ReadScales(const ModuleTensors& tensors, const QuantScheme& scheme,
                              const std::vector<int64_t>& shape) {
  std::vector<float> scales =
      DecodeScales(tensors.Expect(kScale, StoredScaleType(scheme), shape), scheme.scale_dtype);
  const ScaleSign sign = SignOf(scheme);
  if (const std::optional<std::string> bad = FindBadScale(scales, sign)) {
    tensors.Fail(kScale,
                 *bad + (sign == ScaleSign::kEither ? "; scales must be finite and not zero"
                                                    : "; scales must be finite and above zero"));
  }
  return scales;
}

float ReadPositive(const ModuleTensors& tensors, std::string_view suffix) {
  const std::optional<DType> dtype = tensors.Info(suffix).type();
  const bool is_float = dtype && IsDenseFloat(*dtype);
  const std::span<const std::byte> bytes =
      tensors.Expect(suffix, NameOf(is_float ? *dtype : DType::kF32), {1});
  const std::vector<float> value = DecodeScales(bytes, is_float ? *dtype : DType::kF32);
  if (const std::optional<std::string> bad = FindBadScale(value, ScaleSign::kPositive)) {
    tensors.Fail(suffix, *bad + "; it must be finite and above zero");
  }
  return value[0];
}

}  // namespace quantmill
