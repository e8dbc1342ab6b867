// PackDense and PackQuantized of the cuda backend, and decoding of what they keep.
#include <array>
#include <vector>

#include "kernels/block_scaled_linear.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_rounded_linear.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/upload.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// Bound by the write of `out`.
template <typename T>
__global__ void DecodeKernel(CodesView codes, View<T> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t row, int64_t i) {
    const float scale = codes.scales.Row(row)[i / codes.group_size];
    out.Row(row)[i] = FromFloat<T>(codes.Number(row, i) * scale);
  });
}

// Byte i of a row holds code 2i in its low half and 2i + 1 in its high half. Bound by its reads.
__global__ void PackPairsKernel(View<const int8_t> codes, View<uint8_t> pairs) {
  ForEachElement(pairs.rows, pairs.cols, [&](int64_t row, int64_t i) {
    const int8_t* from = codes.Row(row) + 2 * i;
    const int low = from[0] & 15;
    const int high = 2 * i + 1 < codes.cols ? from[1] & 15 : 0;
    pairs.Row(row)[i] = static_cast<uint8_t>(low | high << 4);
  });
}

// The numbers of all stored codes.
std::array<float, 256> Numbers(const QuantScheme& scheme) {
  std::array<float, 256> numbers{};
  for (int stored = 0; stored < 256; ++stored) {
    int code = stored < 128 ? stored : stored - 256;
    if (scheme.bits <= 4 && scheme.code_type == CodeType::kInt) {
      code = (stored & 15) < 8 ? stored & 15 : (stored & 15) - 16;
    } else if (scheme.bits <= 4) {
      code = stored & 15;
    }
    numbers[static_cast<size_t>(stored)] = NumberOf(scheme.code_type, static_cast<int8_t>(code));
  }
  return numbers;
}

}  // namespace

ConstMatrix DenseLinear::Rows(Exec& exec, Workspace::Scope& scope, int64_t first,
                              int64_t count) const {
  const ConstMatrix stored = weight_.view().Rows(first, count);
  if (!decodes()) return stored;
  const Matrix decoded = scope.Take(ActivationType(compute_), count, in());
  ConvertOnDevice(exec, stored, decoded);
  return decoded;
}

CodesView DeviceCodes::Rows(int64_t first, int64_t count) const {
  const ConstMatrix zeros = zero_points.view();
  return {In<uint8_t>(codes.view().Rows(first, count)),
          numbers.Row<float>(0),
          In<float>(scales.view().Rows(first, count)),
          In<int8_t>(zeros.data == nullptr ? zeros : zeros.Rows(first, count)),
          scheme.GroupSizeFor(in),
          two_in_a_byte()};
}

ConstMatrix CodesLinear::Rows(Exec& exec, Workspace::Scope& scope, int64_t first,
                              int64_t count) const {
  const Matrix decoded = scope.Take(ActivationType(compute_), count, in());
  const auto decode = [&](auto type) {
    using T = decltype(type);
    Launch(exec, DecodeKernel<T>, Elementwise(decoded.rows, decoded.cols),
           codes_.Rows(first, count), Out<T>(decoded));
  };
  compute_ == Compute::kBF16 ? decode(BF16{}) : decode(float{});
  return decoded;
}

std::unique_ptr<PackedLinear> CudaBackend::PackDense(Exec& exec, ConstMatrix weight,
                                                     Compute compute) {
  Check(IsDenseFloat(weight.dtype), "PackDense: a float type");
  Tensor stored =
      Empty(compute == Compute::kBF16 ? DType::kBF16 : weight.dtype, weight.rows, weight.cols);
  if (stored.dtype() == weight.dtype) {
    UploadRows(exec, weight, stored);
  } else {
    Upload(exec, weight, stored);
  }
  return std::make_unique<DenseLinear>(std::move(stored), compute);
}

std::unique_ptr<PackedLinear> CudaBackend::PackQuantized(Exec& exec, const QuantizedLinear& linear,
                                                         Compute compute) {
  CheckConsistent(linear);
  DeviceCodes codes;
  codes.scheme = linear.scheme;
  codes.in = linear.in;
  const auto upload = [&](const auto* host, int64_t rows, int64_t cols) {
    const ConstMatrix view = ViewOf(host, rows, cols);
    Tensor device = Empty(view.dtype, rows, cols);
    UploadRows(exec, view, device);
    return device;
  };
  if (codes.two_in_a_byte()) {
    // Twice the bytes cross the bus, which is many times faster than a core packs them.
    Workspace::Scope scope(exec.workspace);
    const Matrix unpacked = scope.Take(DType::kI8, linear.out, linear.in);
    UploadRows(exec, ViewOf(linear.codes.data(), linear.out, linear.in), unpacked);
    codes.codes = Empty(DType::kU8, linear.out, (linear.in + 1) / 2);
    const Matrix pairs = codes.codes;
    Launch(exec, PackPairsKernel, Elementwise(pairs.rows, pairs.cols), In<int8_t>(unpacked),
           Out<uint8_t>(pairs));
  } else {
    codes.codes =
        upload(reinterpret_cast<const uint8_t*>(linear.codes.data()), linear.out, linear.in);
  }
  codes.numbers = upload(Numbers(linear.scheme).data(), 1, 256);
  std::vector<float> scales;
  scales.reserve(linear.scales.size());
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t g = 0; g < linear.groups(); ++g) scales.push_back(linear.EffectiveScale(o, g));
  }
  codes.scales = upload(scales.data(), linear.out, linear.groups());
  if (!linear.scheme.symmetric) {
    codes.zero_points = upload(linear.zero_points.data(), linear.out, linear.groups());
  }
  if (linear.scheme.input.type == InputScheme::Type::kNone) {
    return std::make_unique<CodesLinear>(std::move(codes), compute);
  }
  if (linear.scheme.input.has_block_scales()) {
    return std::make_unique<BlockScaledLinear>(
        std::make_unique<CodesLinear>(std::move(codes), compute), linear);
  }
  return std::make_unique<RoundedLinear>(std::move(codes), linear.input_scale,
                                         linear.input_zero_point, compute);
}

}  // namespace quantmill::QUANTMILL_CUDA
