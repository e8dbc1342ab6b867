#include "quant/calib/block_probe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace quantmill {
namespace {

// Collects one site's statistics, window by window.
class InputCollector {
 public:
  InputCollector(Backend& backend, Exec& exec, int64_t length, int64_t windows, int64_t in,
                 int64_t sample_tokens)
      : backend_(backend),
        exec_(exec),
        length_(length),
        range_(EmptyRange(backend, exec, in)),
        per_window_(std::min(length, (sample_tokens + windows - 1) / windows)) {
    statistics_.gram = backend.Empty(DType::kF32, in, in);
    backend.Zero(exec, statistics_.gram);
    if (per_window_ > 0) {
      statistics_.sample = HostTensor(DType::kF32, windows * per_window_, in);
    }
  }

  void Add(ConstMatrix inputs) {
    for (int64_t row = 0; row < inputs.rows; row += length_) {
      const ConstMatrix window = inputs.Rows(row, length_);
      backend_.AddGram(exec_, window, statistics_.gram);
      // From the middle of equal stretches: the first tokens of a window, which have activations
      // like no others, do not stand for more than themselves.
      for (int64_t i = 0; i < per_window_; ++i) {
        const int64_t token = (2 * i + 1) * length_ / (2 * per_window_);
        backend_.Download(exec_, window.Rows(token, 1),
                          statistics_.sample.view().Rows(sampled_++, 1));
      }
    }
    backend_.AddRange(exec_, inputs, range_);
    statistics_.tokens += inputs.rows;
  }

  ProbedInputs Take(const std::string& where) {
    const Tensor range = HostTensor(DType::kF32, 2, range_.cols());
    backend_.Download(exec_, range_, range);
    for (int64_t i = 0; i < range.cols(); ++i) {
      statistics_.lo.push_back(range.Row<float>(0)[i]);
      statistics_.hi.push_back(range.Row<float>(1)[i]);
      if (std::isfinite(statistics_.lo.back()) && std::isfinite(statistics_.hi.back())) continue;
      throw Error(ErrorCode::kBadInput, where,
                  "input " + std::to_string(i) +
                      " is NaN or infinite for a calibration token: check the checkpoint, or run "
                      "the model in F32");
    }
    return std::move(statistics_);
  }

 private:
  Backend& backend_;
  Exec& exec_;
  int64_t length_;
  Tensor range_;
  int64_t per_window_;
  int64_t sampled_ = 0;
  ProbedInputs statistics_;
};

}  // namespace

Tensor EmptyRange(Backend& backend, Exec& exec, int64_t columns) {
  const Tensor host = HostTensor(DType::kF32, 2, columns);
  std::fill_n(host.Row<float>(0), columns, std::numeric_limits<float>::infinity());
  std::fill_n(host.Row<float>(1), columns, -std::numeric_limits<float>::infinity());
  Tensor range = backend.Empty(DType::kF32, 2, columns);
  backend.Upload(exec, host, range);
  exec.stream.Synchronize();
  return range;
}

ProbedBlock ProbeInputs(Backend& backend, Exec& exec, CalibrationStream& stream,
                        const BlockSpec& block, const BlockWeights& weights, int64_t windows,
                        int64_t sample_tokens) {
  std::map<SharedInput, InputCollector> collectors;
  for (const Site site : kSites) {
    if (site == Site::kMlpOut && block.is_mixture()) continue;
    collectors.try_emplace(site, backend, exec, stream.window(), windows,
                           block.LinearsAt(site).front()->in, sample_tokens);
  }
  ProbedBlock statistics;
  int64_t kept = 0;
  BlockVisitor visitor;
  visitor.input = [&](Site site, ConstMatrix input) {
    collectors.at(site).Add(input);
    if (site != Site::kMlpIn || !block.is_mixture()) return;
    Tensor& all = statistics.mixture_input;
    if (all.empty()) all = backend.Empty(input.dtype, windows * stream.window(), input.cols);
    std::vector<int32_t> rows(static_cast<size_t>(input.rows));
    std::iota(rows.begin(), rows.end(), 0);
    backend.GatherRows(exec, input, rows, all.view().Rows(kept, input.rows));
    kept += input.rows;
  };
  stream.Probe(block, weights, windows, visitor);
  for (auto& [input, collector] : collectors) {
    statistics.inputs.emplace(input, collector.Take(block.prefix + ": " + NameOf(input)));
  }
  return statistics;
}

ProbedInputs ProbeExpert(Backend& backend, Exec& exec, CalibrationStream& stream,
                         const BlockSpec& block, const BlockWeights& weights,
                         const SharedInput& input, ConstMatrix mixture_input,
                         int64_t sample_tokens) {
  const int64_t in = block.LinearsAt(input).front()->in;
  const int64_t length = stream.window();
  InputCollector collector(backend, exec, length, mixture_input.rows / length, in, sample_tokens);
  for (int64_t row = 0; row < mixture_input.rows; row += length) {
    Workspace::Scope scope(exec.workspace);
    const Matrix activated = scope.Take(mixture_input.dtype, length, in);
    stream.ActivateExpert(block, weights, input, mixture_input.Rows(row, length), activated);
    collector.Add(activated);
  }
  return collector.Take(block.prefix + ": " + NameOf(input));
}

KeyValueRange::KeyValueRange(Backend& backend, Exec& exec, int64_t kv_heads, int64_t head_dim)
    : backend_(backend),
      exec_(exec),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      keys_(EmptyRange(backend, exec, kv_heads * head_dim)),
      values_(EmptyRange(backend, exec, kv_heads * head_dim)) {}

void KeyValueRange::Add(ConstMatrix keys, ConstMatrix values) {
  backend_.AddRange(exec_, keys, keys_);
  backend_.AddRange(exec_, values, values_);
}

std::vector<float> KeyValueRange::AbsMaxByHead(const Tensor& range) const {
  const Tensor host = HostTensor(DType::kF32, 2, range.cols());
  backend_.Download(exec_, range, host);
  std::vector<float> absmax(static_cast<size_t>(kv_heads_));
  for (int64_t i = 0; i < host.cols(); ++i) {
    float& head = absmax[static_cast<size_t>(i / head_dim_)];
    const float lo = host.Row<float>(0)[i];
    const float hi = host.Row<float>(1)[i];
    if (lo > hi) return absmax;  // no token yet
    // NaN passes on: the caller refuses it.
    const float largest = std::max(std::abs(lo), std::abs(hi));
    if (!(largest <= head)) head = largest;
  }
  return absmax;
}

OutputProbe::OutputProbe(Backend& backend, Exec& exec, CalibrationStream& stream,
                         const BlockSpec& block, const BlockWeights& dense, int64_t windows)
    : backend_(backend), exec_(exec), stream_(stream), block_(block), windows_(windows) {
  BlockVisitor visitor;
  visitor.output = [&](ConstMatrix output) {
    const size_t before = reference_.size();
    reference_.resize(before + static_cast<size_t>(output.size()));
    backend_.Download(exec_, output,
                      MutableViewOf(reference_.data() + before, output.rows, output.cols));
  };
  stream.Probe(block, dense, windows, visitor);
}

double OutputProbe::Error(const BlockWeights& weights) {
  double squares = 0;
  int64_t tokens = 0;
  size_t at = 0;
  BlockVisitor visitor;
  visitor.output = [&](ConstMatrix output) {
    const Tensor host = HostTensor(DType::kF32, output.rows, output.cols);
    backend_.Download(exec_, output, host);
    for (int64_t row = 0; row < output.rows; ++row) {
      double sum = 0;
      const auto* got = host.Row<float>(row);
      for (int64_t i = 0; i < output.cols; ++i) {
        const double d = static_cast<double>(got[i]) - static_cast<double>(reference_[at++]);
        sum += d * d;
      }
      squares += sum;
    }
    tokens += output.rows;
  };
  stream_.Probe(block_, weights, windows_, visitor);
  return squares / static_cast<double>(tokens);
}

}  // namespace quantmill
