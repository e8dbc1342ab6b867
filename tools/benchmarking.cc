#include "tools/benchmarking.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <optional>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/read_bandwidth.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/quantize.h"
#include "quant/runtime/benchmark.h"
#include "tools/progress.h"
#include "tools/signals.h"
#include "tools/weights.h"

namespace quantmill {
namespace {

constexpr int kReadRounds = 5;

// By batch, by run.
using ModelRuns = std::vector<std::vector<BenchmarkRun>>;

// The models to run, each opened once; the reference last, unless it is one of those named.
struct Field {
  std::deque<ModelSource> sources;
  std::optional<size_t> reference;
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The nearest rank.
double Percentile99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto rank = (values.size() * 99 + 99) / 100;
  return values[rank - 1];
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

BenchRow RowOf(int64_t batch, const std::vector<BenchmarkRun>& runs) {
  std::vector<double> first;
  std::vector<double> means;
  std::vector<double> steps;
  for (const BenchmarkRun& run : runs) {
    first.insert(first.end(), run.first_token.begin(), run.first_token.end());
    means.push_back(Mean(run.steps));
    steps.insert(steps.end(), run.steps.begin(), run.steps.end());
  }
  BenchRow row;
  row.batch = batch;
  row.first_token = Median(std::move(first));
  row.token = Median(std::move(means));
  row.token_p99 = Percentile99(std::move(steps));
  row.tokens_per_second = static_cast<double>(batch) / row.token;
  return row;
}

Field OpenModels(const BenchmarkFlags& flags) {
  Field field;
  for (const std::string& name : flags.models) field.sources.push_back(ModelSource::Open(name));
  if (flags.reference.empty()) return field;
  ModelSource reference = ModelSource::Open(flags.reference);
  for (size_t i = 0; i < field.sources.size() && !field.reference; ++i) {
    std::error_code error;
    if (std::filesystem::equivalent(field.sources[i].checkpoint().folder(),
                                    reference.checkpoint().folder(), error)) {
      field.reference = i;
    }
  }
  if (!field.reference) {
    field.reference = field.sources.size();
    field.sources.push_back(std::move(reference));
  }
  return field;
}

void CheckLengths(const BenchmarkFlags& flags, const Field& field) {
  for (const ModelSource& source : field.sources) {
    const int64_t positions = source.spec().max_positions;
    if (positions == 0 || flags.prompt_tokens + flags.decode_tokens <= positions) continue;
    throw Error(ErrorCode::kUsage, "--prompt-tokens",
                std::to_string(flags.prompt_tokens) + " and " +
                    std::to_string(flags.decode_tokens) + " more are above the " +
                    std::to_string(positions) + " positions of " + source.path());
  }
}

// The models take turns, so that a machine that others slow down slows all of them.
std::vector<ModelRuns> RunAll(const BenchmarkFlags& flags, Session& session,
                              std::deque<DecoderModel>& models, ProgressLine& line) {
  std::vector<ModelRuns> runs(models.size(), ModelRuns(flags.batches.size()));
  const int64_t total = flags.runs * std::ssize(flags.batches) * std::ssize(models);
  int64_t done = 0;
  for (int64_t run = 0; run < flags.runs; ++run) {
    for (size_t b = 0; b < flags.batches.size(); ++b) {
      for (size_t m = 0; m < models.size(); ++m) {
        line.Update({"timing", done++, total, 0, "batch " + std::to_string(flags.batches[b])});
        runs[m][b].push_back(RunBenchmark(
            session.backend(), session.exec(), models[m],
            {flags.batches[b], flags.prompt_tokens, flags.decode_tokens}, ThrowIfInterrupted));
      }
    }
  }
  return runs;
}

BenchedModel Describe(const BenchmarkFlags& flags, const ModelSource& source,
                      const DecoderModel& model, const ModelRuns& runs, Session& session) {
  BenchedModel benched;
  benched.path = source.path();
  benched.weights = DescribeWeights(source);
  benched.kv_cache = Describe(KvPrecisionNamed(flags.kv_cache, source), source);
  benched.file_bytes = WeightFileBytes(source);
  benched.weight_bytes = model.weight_bytes();
  if (session.backend().Info().memory == 0) {
    ThreadPool pool(session.backend().Info().threads);
    benched.read_bandwidth = ReadBandwidth(pool, benched.weight_bytes, kReadRounds);
  }
  for (size_t b = 0; b < flags.batches.size(); ++b) {
    BenchRow row = RowOf(flags.batches[b], runs[b]);
    if (benched.read_bandwidth) {
      row.bandwidth_share =
          static_cast<double>(benched.weight_bytes) / row.token / *benched.read_bandwidth;
    }
    benched.rows.push_back(row);
  }
  return benched;
}

void CompareWithReference(size_t reference, std::vector<BenchedModel>& models) {
  const std::vector<BenchRow> theirs = models[reference].rows;
  for (size_t m = 0; m < models.size(); ++m) {
    if (m == reference) continue;
    for (size_t b = 0; b < theirs.size(); ++b) {
      BenchRow& row = models[m].rows[b];
      row.speedup_first_token = theirs[b].first_token / row.first_token;
      row.speedup = theirs[b].token / row.token;
    }
  }
}

}  // namespace

BenchReport BenchmarkModels(const BenchmarkFlags& flags, Session& session, const Console& console) {
  const auto start = std::chrono::steady_clock::now();
  const Compute compute = session.ComputeNamed(flags.compute);
  const Field field = OpenModels(flags);
  CheckLengths(flags, field);
  ProgressLine line(console.shows_progress());
  std::deque<DecoderModel> models;
  for (const ModelSource& source : field.sources) {
    ThrowIfInterrupted();
    line.Update({"loading", std::ssize(models), std::ssize(field.sources), 0, source.path()});
    models.emplace_back(session.backend(), session.exec(), source, compute,
                        KvPrecisionNamed(flags.kv_cache, source));
  }
  const std::vector<ModelRuns> runs = RunAll(flags, session, models, line);
  BenchReport report;
  report.prompt_tokens = flags.prompt_tokens;
  report.decode_tokens = flags.decode_tokens;
  report.runs = flags.runs;
  report.compute = NameOf(compute);
  report.backend = session.Describe();
  for (size_t m = 0; m < models.size(); ++m) {
    report.models.push_back(Describe(flags, field.sources[m], models[m], runs[m], session));
  }
  if (field.reference) {
    report.reference = field.sources[*field.reference].path();
    CompareWithReference(*field.reference, report.models);
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.peak_rss_bytes = PeakResidentBytes();
  return report;
}

}  // namespace quantmill
