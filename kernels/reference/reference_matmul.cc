// Weights, MatMul and AddGram of the reference backend.
#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/reference_elements.h"
#include "kernels/reference/reference_rounded.h"

namespace quantmill::reference {
namespace {

// The weight as MatMul multiplies it, in F32.
class ReferenceLinear : public PackedLinear {
 public:
  ReferenceLinear(int64_t out, int64_t in, Compute compute)
      : weight_(HostTensor(DType::kF32, out, in)), compute_(compute) {}
  int64_t out() const override { return weight_.rows(); }
  int64_t in() const override { return weight_.cols(); }
  int64_t bytes() const override { return weight_.bytes(); }
  Compute compute() const override { return compute_; }
  const Tensor& weight() const { return weight_; }

 private:
  Tensor weight_;
  Compute compute_;
};

void RoundToCompute(Compute compute, Matrix weight) {
  if (compute != Compute::kBF16) return;
  for (int64_t o = 0; o < weight.rows; ++o) {
    float* row = weight.Row<float>(o);
    for (int64_t i = 0; i < weight.cols; ++i) row[i] = RoundTo(DType::kBF16, row[i]);
  }
}

double Dot(ConstMatrix x, int64_t t, const ReferenceLinear& w, int64_t o) {
  const float* row = w.weight().Row<float>(o);
  double sum = 0;
  for (int64_t i = 0; i < w.in(); ++i) sum += static_cast<double>(Read(x, t, i)) * row[i];
  return sum;
}

}  // namespace

std::unique_ptr<PackedLinear> ReferenceBackend::PackDense(Exec&, ConstMatrix weight,
                                                          Compute compute) {
  auto packed = std::make_unique<ReferenceLinear>(weight.rows, weight.cols, compute);
  for (int64_t o = 0; o < weight.rows; ++o) {
    float* row = packed->weight().Row<float>(o);
    for (int64_t i = 0; i < weight.cols; ++i) row[i] = Read(weight, o, i);
  }
  RoundToCompute(compute, packed->weight());
  return packed;
}

std::unique_ptr<PackedLinear> ReferenceBackend::PackQuantized(Exec&, const QuantizedLinear& linear,
                                                              Compute compute) {
  const InputScheme& input = linear.scheme.input;
  if (input.type != InputScheme::Type::kNone && !input.has_block_scales()) {
    CheckConsistent(linear);
    return std::make_unique<ReferenceRoundedLinear>(linear, compute);
  }
  auto packed = std::make_unique<ReferenceLinear>(linear.out, linear.in, compute);
  Dequantize(linear, packed->weight());
  RoundToCompute(compute, packed->weight());
  if (!input.has_block_scales()) return packed;
  return std::make_unique<BlockScaledLinear>(std::move(packed), linear);
}

void ReferenceBackend::EmbedRows(Exec&, ConstMatrix table, std::span<const int32_t> ids,
                                 float scale, Matrix out) {
  CheckEmbedRows(table, ids, out);
  for (int64_t t = 0; t < out.rows; ++t) {
    const int32_t id = ids[static_cast<size_t>(t)];
    Check(id >= 0 && id < table.rows, "EmbedRows: token id outside the table");
    for (int64_t i = 0; i < out.cols; ++i) out.Row<float>(t)[i] = scale * Read(table, id, i);
  }
}

void ReferenceBackend::AddRows(Exec&, ConstMatrix table, std::span<const int32_t> ids, Matrix out) {
  CheckAddRows(table, ids, out);
  for (int64_t t = 0; t < out.rows; ++t) {
    const int32_t id = ids[static_cast<size_t>(t)];
    Check(id >= 0 && id < table.rows, "AddRows: id outside the table");
    for (int64_t i = 0; i < out.cols; ++i) out.Row<float>(t)[i] += Read(table, id, i);
  }
}

void ReferenceBackend::MatMul(Exec& exec, ConstMatrix x, const PackedLinear& w, ConstMatrix bias,
                              MatMulMode mode, Matrix y) {
  CheckMatMul(x, w, bias, mode, y);
  if (const auto* scaled = dynamic_cast<const BlockScaledLinear*>(&w)) {
    return MatMul(exec, RoundedToBlocks(x, scaled->rounding()), scaled->weight(), bias, mode, y);
  }
  const auto* rounded = dynamic_cast<const ReferenceRoundedLinear*>(&w);
  const Tensor product = rounded != nullptr ? RoundedProduct(x, rounded->linear()) : Tensor();
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t o = 0; o < w.out(); ++o) {
      double sum = rounded != nullptr ? product.Row<float>(t)[o]
                                      : Dot(x, t, static_cast<const ReferenceLinear&>(w), o);
      if (bias.size() != 0) sum += bias.Row<float>(0)[o];
      if (mode == MatMulMode::kAdd) sum += y.Row<float>(t)[o];
      if (y.dtype == DType::kBF16) {
        y.Row<BF16>(t)[o] = ToBF16(static_cast<float>(sum));
      } else {
        y.Row<float>(t)[o] = static_cast<float>(sum);
      }
    }
  }
}

void ReferenceBackend::AddGram(Exec&, ConstMatrix x, Matrix gram) {
  CheckAddGram(x, gram);
  for (int64_t i = 0; i < x.cols; ++i) {
    for (int64_t j = i; j < x.cols; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < x.rows; ++t) {
        sum += static_cast<double>(Read(x, t, i)) * Read(x, t, j);
      }
      gram.Row<float>(i)[j] = static_cast<float>(gram.Row<float>(i)[j] + sum);
    }
  }
}

}  // namespace quantmill::reference
