#include "quant/transform/rounding_score.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "quant/solve/scale_search.h"
#include "quant/solve/solver.h"

namespace quantmill {
namespace {

// Weighing a row costs in^2; the sample keeps a candidate at this many products, with as many rows
// as make its rounding errors average out.
constexpr int64_t kProducts = int64_t{1} << 27;
constexpr int64_t kFewestRows = 32;
constexpr int64_t kMostRows = 1024;

int64_t RowLimit(int64_t in, bool by_gram) {
  if (!by_gram) return kMostRows;
  return std::clamp(kProducts / std::max<int64_t>(1, in * in), kFewestRows, kMostRows);
}

}  // namespace

RoundingScore::RoundingScore(Backend& backend, Exec& exec, const FoldProblem& problem,
                             ConstMatrix gram)
    : backend_(backend),
      exec_(exec),
      problem_(problem),
      rows_(SampleRows(problem.weight.rows(), RowLimit(problem.in(), gram.data != nullptr))),
      host_(HostTensor(DType::kF32, std::ssize(rows_), problem.in())),
      device_(backend.Empty(DType::kF32, std::ssize(rows_), problem.in())),
      codes_(backend.Empty(DType::kI8, std::ssize(rows_), problem.in())),
      forms_(backend.Empty(DType::kF32, 1, std::ssize(rows_))) {
  if (gram.data == nullptr) return;
  const int64_t in = problem.in();
  gram_ = backend.Empty(DType::kF32, in, in);
  const Tensor staging = HostTensor(DType::kF32, in, in);
  backend.Download(exec, gram, staging);
  Tensor diagonal = HostTensor(DType::kF32, 1, in);
  for (int64_t i = 0; i < in; ++i) diagonal.Row<float>(0)[i] = staging.Row<float>(i)[i];
  diagonal_ = backend.Empty(DType::kF32, 1, in);
  backend.Upload(exec, diagonal, diagonal_);
  backend.Upload(exec, staging, gram_);
  std::vector<int32_t> order(static_cast<size_t>(in));
  std::iota(order.begin(), order.end(), 0);
  backend.PermuteGram(exec, order, gram_);  // fills the lower triangle
  exec.stream.Synchronize();
}

double RoundingScore::OnSmallestGrid(const std::vector<float>& scales) { return Score(scales, {}); }

double RoundingScore::OnSearchedGrid(const std::vector<float>& scales, ConstMatrix gram_blocks) {
  return Score(scales, gram_blocks);
}

double RoundingScore::Score(const std::vector<float>& scales, ConstMatrix gram_blocks) {
  const std::vector<float> columns = ColumnScales(problem_, scales);
  if (!Round(columns, gram_blocks)) return std::numeric_limits<double>::infinity();
  return gram_.empty() ? WeighedByImportance() : WeighedByGram();
}

// Leaves dW in host_.
bool RoundingScore::Round(const std::vector<float>& columns, ConstMatrix gram_blocks) {
  const int64_t in = problem_.in();
  for (int64_t r = 0; r < host_.rows(); ++r) {
    const auto* from = problem_.weight.Row<float>(rows_[static_cast<size_t>(r)]);
    auto* to = host_.Row<float>(r);
    for (int64_t i = 0; i < in; ++i) to[i] = from[i] * columns[static_cast<size_t>(i)];
  }
  backend_.Upload(exec_, host_, device_);
  QuantizedLinear linear;
  try {
    const Grid grid =
        gram_blocks.data == nullptr
            ? MinMax(backend_, exec_, device_, problem_.scheme)
            : SearchScales(backend_, exec_, device_,
                           ScaledBlocks(backend_, exec_, gram_blocks, columns), problem_.scheme);
    backend_.RoundToGrid(exec_, device_, problem_.scheme, grid.scales, grid.zero_points, codes_);
    linear = DownloadLinear(backend_, exec_, problem_.scheme, grid, codes_);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) throw;
    return false;  // a scale past its type
  }
  for (int64_t r = 0; r < host_.rows(); ++r) {
    const auto* from = problem_.weight.Row<float>(rows_[static_cast<size_t>(r)]);
    auto* to = host_.Row<float>(r);
    DequantizeRow(linear, r, to);
    for (int64_t i = 0; i < in; ++i) to[i] = to[i] / columns[static_cast<size_t>(i)] - from[i];
  }
  return true;
}

double RoundingScore::WeighedByGram() {
  backend_.Upload(exec_, host_, device_);
  backend_.QuadraticForm(exec_, device_, gram_, diagonal_, forms_);
  std::vector<float> rows(static_cast<size_t>(forms_.cols()));
  backend_.Download(exec_, forms_, MutableViewOf(rows.data(), 1, forms_.cols()));
  double sum = 0;
  for (const float x : rows) sum += static_cast<double>(x);
  return sum;
}

double RoundingScore::WeighedByImportance() const {
  std::vector<double> squares(static_cast<size_t>(problem_.in()));
  for (int64_t r = 0; r < host_.rows(); ++r) {
    const auto* row = host_.Row<float>(r);
    for (size_t i = 0; i < squares.size(); ++i) {
      squares[i] += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    }
  }
  double sum = 0;
  for (size_t i = 0; i < squares.size(); ++i) {
    sum += squares[i] * static_cast<double>(problem_.importance[i]);
  }
  return sum;
}

}  // namespace quantmill
