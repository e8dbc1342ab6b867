// What the commands found out, as plain data. Rendered by text.h (terminal) and json.h (machines);
// filled by quant/verify, quant/pipeline and tools/.
#ifndef QUANTMILL_QUANT_REPORT_RESULTS_H_
#define QUANTMILL_QUANT_REPORT_RESULTS_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace quantmill {

// Something a user should know although the command went on: a fallback, a default that mattered.
struct Event {
  std::string kind;   // stable, for scripts: "damping_raised", "round_to_nearest_fallback",
                      // "dead_columns", "bundled_calibration", "carried_tensor",
                      // "outlier_channels", "folding_kept_identity", "double_precision",
                      // "short_calibration", "serving_target", "block_fallback",
                      // "unreached_experts", "dropped_head"
  std::string where;  // layer, tensor or file
  std::string what;
  bool is_fallback = false;  // counts against max_fallbacks
};

// ---- quantize ----
struct LayerResult {
  std::string name;    // module
  std::string scheme;  // Describe(QuantScheme), or "dense"
  // Of the layer's output on calibration inputs, squared and relative: tr(dW H dW^T) / tr(W H W^T).
  // Without statistics (rtn): that of the weights, |dW|^2 / |W|^2.
  double relative_error = 0;
  double rounded_error = 0;    // what rounding to nearest would have left of the same
  double target_strength = 0;  // of the asymmetric target, 0 to 1; relative_error is against it
  double weight_error = 0;     // |dW|^2 / |W|^2, recomputed by verify from the file
};

// How the calibration text uses the experts of one block. Their statistics are of all tokens, each
// run through every expert; this is where the router would have sent them.
struct MixtureCoverage {
  std::string block;            // "model.layers.0"
  int64_t top_k = 0;            // experts a token is sent to
  std::vector<int64_t> tokens;  // by expert
};

struct PhaseSeconds {
  double total = 0;
  double load = 0;        // reading and packing weights, embedding
  double forward = 0;     // calibration forward
  double statistics = 0;  // Gram matrices
  double solve = 0;
  double write = 0;
  double verify = 0;  // re-opening and checking the output
  double fold = 0;    // search for scales of inputs (AWQ, SmoothQuant)
};

// What a --budget came to.
struct BudgetOutcome {
  std::string asked;  // "kl<=0.05"
  double limit = 0;   // of it, as `measured` counts; "4.5bits": bits a weight
  // Of the trial that was kept: KL in nats a token, or the growth of the perplexity as a share.
  // Nothing for bits, which are counted.
  std::optional<double> measured;
  double average_bits = 0;  // a weight, over the quantized layers of the blocks, scales counted
};

struct QuantizeReport {
  std::string output;
  std::string method;       // "gptq", "rtn"
  std::string format;       // "compressed-tensors"
  std::string compute;      // type of the calibration forward: "f32", "bf16"
  std::string backend;      // "cpu avx512_bf16, 2 threads"
  std::string backend_isa;  // "cpu avx512_bf16": what the bytes depend on
  int64_t calibration_tokens = 0;
  int64_t planned_bytes = 0;  // the estimate of peak memory given beforehand
  int64_t peak_rss_bytes = 0;
  int64_t planned_gpu_bytes = 0;  // the same of a GPU's memory; 0 without one
  int64_t peak_gpu_bytes = 0;
  uint64_t input_bytes = 0;  // of weights
  uint64_t output_bytes = 0;
  std::optional<BudgetOutcome> budget;
  PhaseSeconds seconds;
  std::vector<LayerResult> layers;
  std::vector<MixtureCoverage> mixtures;  // calibrated ones
  std::vector<Event> events;
};

// ---- plan (printed before work starts) ----
struct PlanItem {
  std::string what;  // "activations (65,536 tokens x 576, F32)"
  int64_t bytes = 0;
};
struct MemoryPlan {
  std::vector<PlanItem> items;  // of host memory
  int64_t total_bytes = 0;
  std::vector<std::string> notes;   // "mlp inputs are recomputed: keeping them takes ..."
  std::vector<PlanItem> gpu_items;  // empty where the backend's memory is the host's
  int64_t gpu_bytes = 0;
};

// Layers that differ in nothing but the number of their block, in one scheme.
struct PlannedLayers {
  std::string layers;  // "model.layers.*.mlp.down_proj", "model.layers.{0,3-5}.mlp.up_proj"
  std::string scheme;  // "w4a16:g64", or "dense"
  int64_t count = 0;
  int64_t weights = 0;  // 0 where dense
  int64_t bytes = 0;    // in the artifact, scales and zero points included
};
struct SensitivityTable {
  struct Group {
    std::string layers;  // of one scheme, because servers fuse them
    int64_t weights = 0;
    std::vector<double> predicted_kl;  // of each candidate, nats a token
  };
  std::vector<std::string> candidates;  // schemes
  std::vector<Group> groups;
};
struct PlanReport {
  std::string model;
  std::string method;
  std::string format;
  std::vector<PlannedLayers> layers;
  double average_bits = 0;  // over quantized layers
  int64_t input_bytes = 0;
  int64_t output_bytes = 0;        // about: of tensors, without headers
  int64_t calibration_tokens = 0;  // 0: none needed
  MemoryPlan memory;
  std::string budget;                   // --budget that chose the layers' schemes; empty: none
  std::optional<double> predicted_kl;   // of that choice, nats a token
  std::optional<PhaseSeconds> seconds;  // estimated; without write and verify
  std::vector<Event> events;
  std::optional<SensitivityTable> sensitivity;
};

// ---- verify ----
struct VerifiedLayer {
  std::string name;
  std::string scheme;
  std::optional<double> weight_error;    // |dW|^2 / |W|^2 against the reference
  std::optional<double> recorded_error;  // what quantize wrote into quantmill.json
};
struct Problem {
  std::string where;  // file: tensor (offset)
  std::string what;
};
struct VerifyReport {
  std::string artifact;
  std::string reference;  // empty: none
  std::string format;
  uint64_t bytes_checked = 0;
  int64_t tensors = 0;
  std::vector<VerifiedLayer> layers;
  std::vector<Problem> problems;     // empty: passed
  std::optional<int64_t> fallbacks;  // of making it, as quantmill.json tells; nothing without one
  double seconds = 0;
  bool passed() const { return problems.empty(); }
};

// ---- convert ----
struct ConvertReport {
  std::string input;
  std::string output;
  std::string from;  // "awq"
  std::string to;    // "gptq", "dense F16"
  int64_t layers = 0;
  uint64_t input_bytes = 0;
  uint64_t output_bytes = 0;
  double seconds = 0;
};

// ---- eval ----
struct EvaluatedModel {
  std::string path;
  std::string weights;  // "F16", "compressed-tensors w4a16 g64 symmetric"
  double perplexity = 0;
  std::pair<double, double> perplexity_ci95;
  int64_t tokens = 0;  // scored
  double tokens_per_second = 0;
  uint64_t file_bytes = 0;
  // Against the reference, paired on the same tokens; absent without one.
  struct Divergence {
    double kl_mean = 0;
    double kl_ci95 = 0;  // half width
    double kl_p99 = 0;
    double kl_max = 0;
    double top1_agreement = 0;
    double flips = 0;
    double delta_nll = 0;
    double delta_nll_ci95 = 0;
  };
  std::optional<Divergence> divergence;
};
struct ProtocolDescription {
  std::string name;  // "windows", "llamacpp"
  int64_t window = 0;
  int64_t windows = 0;
  bool bos = false;              // a BOS token is part of what is scored
  std::string text;              // file name
  std::string tokens_sha256;     // of the token ids as little-endian int32
  int64_t text_tokens = 0;       // of the whole text
  std::string compute;           // "f32", "bf16"
  std::string kv_cache = "f32";  // how keys and values were kept, for people
};
struct EvalReport {
  ProtocolDescription protocol;
  std::string backend;
  std::string reference;  // empty: none
  // The reference's own figures, where it is not one of `models` (there they stand already).
  std::optional<EvaluatedModel> reference_scores;
  std::vector<EvaluatedModel> models;  // as they were named
  double seconds = 0;
  int64_t peak_rss_bytes = 0;
};

// ---- bench ----
// `batch` sequences decoded together. Seconds of wall time, medians over the runs.
struct BenchRow {
  int64_t batch = 1;
  double first_token = 0;        // a prompt alone, to its first token (TTFT)
  double token = 0;              // a step: one token of each sequence (TPOT)
  double token_p99 = 0;          // 99th percentile of the steps (ITL)
  double tokens_per_second = 0;  // of all sequences while they decode
  // Weights read in a step's time, as a share of what reading alone reaches; host memory only.
  std::optional<double> bandwidth_share;
  // How many times the reference's time; absent without one, and of the reference itself.
  std::optional<double> speedup_first_token;
  std::optional<double> speedup;  // of a step
};
struct BenchedModel {
  std::string path;
  std::string weights;   // "F16", "compressed-tensors w4a16 g64 symmetric"
  std::string kv_cache;  // for people
  uint64_t file_bytes = 0;
  int64_t weight_bytes = 0;              // in memory, packed: what a step reads
  std::optional<double> read_bandwidth;  // bytes a second, of as many bytes; host memory only
  std::vector<BenchRow> rows;
};
struct BenchReport {
  int64_t prompt_tokens = 0;
  int64_t decode_tokens = 0;
  int64_t runs = 0;
  std::string compute;  // "f32", "bf16"
  std::string backend;
  std::string reference;             // empty: none
  std::vector<BenchedModel> models;  // as they were named; then the reference, if it was not
  double seconds = 0;
  int64_t peak_rss_bytes = 0;
};

// ---- gate ----
// One limit, and what was measured of it.
struct GateCheck {
  enum class Unit : uint8_t { kNumber, kShare, kBytes, kCount };
  std::string key;  // of the limits file: "kl"
  Unit unit = Unit::kNumber;
  bool at_least = false;  // else: at most
  double limit = 0;
  std::optional<double> measured;    // nothing: it could not be measured, `note` says why
  std::optional<double> half_width;  // of the 95 % interval, where one is known
  bool passed = false;
  std::string note;  // what a person should know of the verdict; may be empty
};
struct GateReport {
  std::string artifact;
  std::string reference;
  std::string limits;   // the file
  bool strict = false;  // the whole interval must keep the limit
  VerifyReport verified;
  std::optional<EvalReport> evaluated;  // nothing: no limit needs it, or the file is damaged
  std::optional<BenchReport> benched;   // likewise
  std::vector<GateCheck> checks;        // as the limits file has them
  double seconds = 0;

  bool passed() const {
    return verified.passed() &&
           std::all_of(checks.begin(), checks.end(), [](const GateCheck& c) { return c.passed; });
  }
};

// ---- inspect ----
struct InspectedTensorGroup {
  std::string what;   // "attention and MLP linears", "embedding", "norms", "carried through"
  std::string dtype;  // "F16", "int4 g64 symmetric"
  int64_t tensors = 0;
  uint64_t bytes = 0;
  int64_t parameters = 0;
};
struct InspectReport {
  std::string path;
  std::string architecture;
  std::string format;  // "dense", "compressed-tensors pack-quantized"
  int64_t layers = 0, hidden = 0, ffn = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  int64_t max_positions = 0;
  bool tied = false;
  std::string kv_cache = "f32";  // how a runtime is to keep keys and values, for people
  int64_t parameters = 0;
  uint64_t bytes = 0;
  double bits_per_weight = 0;  // of quantized linears, scales and zero points included; 0 if none
  std::vector<std::string> files;
  std::vector<InspectedTensorGroup> groups;
  std::vector<std::string> unknown_tensors;  // carried through untouched
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_RESULTS_H_
