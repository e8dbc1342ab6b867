#include "quant/pipeline/block_rows.h"

#include <cmath>

#include "formats/gguf/block_grid.h"
#include "formats/gguf/codec.h"
#include "formats/gguf/repack.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace quantmill {
namespace {

BlockGrid GridOf(GgmlType type) {
  const std::optional<BlockGrid> grid = BlockGridOf(type);
  Check(grid.has_value(), "a type of blocks without a grid");
  return *grid;
}

size_t RowSize(GgmlType type, int64_t in) {
  const std::optional<uint64_t> bytes = RowBytes(type, in);
  Check(bytes.has_value(), "a row does not fill whole blocks");
  return static_cast<size_t>(*bytes);
}

Tensor Uploaded(Backend& backend, Exec& exec, ConstMatrix host) {
  Tensor device = backend.Empty(host.dtype, host.rows, host.cols);
  backend.Upload(exec, host, device);
  exec.stream.Synchronize();  // `host` is read until then
  return device;
}

void CheckReached(ConstMatrix scales, ConstMatrix offsets, GgmlType type) {
  for (const ConstMatrix& numbers : {scales, offsets}) {
    for (int64_t r = 0; r < numbers.rows; ++r) {
      for (int64_t g = 0; g < numbers.cols; ++g) {
        if (std::isfinite(numbers.Row<float>(r)[g])) continue;
        throw Error(ErrorCode::kBadInput, "weight",
                    "row " + std::to_string(r) + " is past what the scales of " +
                        std::string(NameOf(type)) +
                        " reach; keep the layer as it is with --keep-dense");
      }
    }
  }
}

}  // namespace

bool IsSolved(GgmlType type) { return HasOwnScales(type) || BlockGridOf(type).has_value(); }

QuantScheme SchemeOfBlocks(GgmlType type) {
  if (type == GgmlType::kMxfp4) {
    return {.group_size = 32, .scale_dtype = DType::kF8E8M0, .code_type = CodeType::kFp4};
  }
  if (type == GgmlType::kIq4Nl) return {.group_size = 32, .code_type = CodeType::kIq4Nl};
  const BlockGrid grid = GridOf(type);
  QuantScheme scheme;
  scheme.bits = grid.bits;
  scheme.group_size = grid.group;
  scheme.scale_dtype = HasOwnScales(type) ? DType::kF16 : DType::kF32;
  return scheme;
}

bool HasOwnScales(GgmlType type) {
  return type == GgmlType::kQ4_0 || type == GgmlType::kQ5_0 || type == GgmlType::kQ8_0 ||
         type == GgmlType::kIq4Nl || type == GgmlType::kMxfp4;
}

BlockChoice ChooseBlocks(Backend& backend, Exec& exec, ConstMatrix weight, GgmlType type,
                         std::span<const float> importance) {
  const BlockGrid grid = GridOf(type);
  const size_t row_bytes = RowSize(type, weight.cols);
  const int64_t groups = weight.cols / grid.group;
  const Tensor values = HostTensor(DType::kF32, weight.rows, weight.cols);
  backend.Download(exec, weight, values);
  const Tensor scales = HostTensor(DType::kF32, weight.rows, groups);
  const Tensor offsets = grid.has_offsets ? HostTensor(DType::kF32, weight.rows, groups) : Tensor();
  BlockChoice choice;
  choice.rows.resize(static_cast<size_t>(weight.rows) * row_bytes);
  ThreadPool pool(backend.Info().threads);
  pool.ParallelFor(weight.rows, [&](int64_t r, int) {
    const auto numbers = [&](const Tensor& tensor) {
      return tensor.empty() ? std::span<float>()
                            : std::span(tensor.Row<float>(r), static_cast<size_t>(tensor.cols()));
    };
    EncodeGrid(type, numbers(values), importance,
               std::span(choice.rows).subspan(static_cast<size_t>(r) * row_bytes, row_bytes),
               numbers(scales), numbers(offsets));
  });
  CheckReached(scales, offsets, type);
  choice.grid.scales = Uploaded(backend, exec, scales);
  if (grid.has_offsets) choice.grid.offsets = Uploaded(backend, exec, offsets);
  return choice;
}

void PutCodes(GgmlType type, const QuantizedLinear& linear, std::span<std::byte> rows) {
  const size_t row_bytes = RowSize(type, linear.in);
  const auto in = static_cast<size_t>(linear.in);
  Check(rows.size() == static_cast<size_t>(linear.out) * row_bytes, "PutCodes: other rows");
  for (size_t r = 0; r < static_cast<size_t>(linear.out); ++r) {
    ReplaceCodes(type, std::span(linear.codes).subspan(r * in, in),
                 rows.subspan(r * row_bytes, row_bytes));
  }
}

std::vector<std::byte> RepackRows(GgmlType type, const QuantizedLinear& linear,
                                  const std::string& where) {
  const size_t row_bytes = RowSize(type, linear.in);
  std::vector<std::byte> rows(static_cast<size_t>(linear.out) * row_bytes);
  for (int64_t r = 0; r < linear.out; ++r) {
    RepackRow(linear, r, type, where,
              std::span(rows).subspan(static_cast<size_t>(r) * row_bytes, row_bytes));
  }
  return rows;
}

Tensor DecodeRows(GgmlType type, std::span<const std::byte> rows, int64_t out, int64_t in) {
  const size_t row_bytes = RowSize(type, in);
  Tensor values = HostTensor(DType::kF32, out, in);
  for (int64_t r = 0; r < out; ++r) {
    DecodeRow(type, rows.subspan(static_cast<size_t>(r) * row_bytes, row_bytes),
              std::span(values.Row<float>(r), static_cast<size_t>(in)));
  }
  return values;
}

}  // namespace quantmill
