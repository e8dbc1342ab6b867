#include "quant/model/gguf_rope_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "formats/gguf/codec.h"
#include "kernels/core/error.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr double kLow = 1;  // low_freq_factor and high_freq_factor of Llama 3's family
constexpr double kHigh = 4;

bool Near(double a, double b) {
  constexpr double kTolerance = 1e-4;  // converters compute in float
  return std::abs(a - b) <= kTolerance * std::abs(b);
}

class RopeConfig {
 public:
  RopeConfig(GgufKeyReader& keys, int64_t rotary_dim, json& config)
      : keys_(keys), rotary_dim_(rotary_dim), config_(config) {
    config_["rope_theta"] = ShortestDecimal(keys.Real("rope.freq_base").value_or(10000));
    keys.Key("rope.scaling.finetuned");  // says where a scaling comes from, not what it is
    const json scaling = FindScaling();
    if (!scaling.is_null()) config_["rope_scaling"] = scaling;
  }

 private:
  json FindScaling();
  json ScalingOf(const std::string& type);
  json Llama3Scaling(const GgufPlace& factors) const;
  json LongRope(const GgufPlace& large);
  std::vector<float> Divisors(const GgufPlace& place) const;

  GgufKeyReader& keys_;
  int64_t rotary_dim_;
  json& config_;
};

json RopeConfig::FindScaling() {
  const std::string* type = keys_.Text("rope.scaling.type");
  const bool scaled = type != nullptr && *type != "none";
  const auto refuse_beside = [&](const std::string& tensor) {
    keys_.Refuse(keys_.Key("rope.scaling.type"),
                 "is '" + *type + "' beside tensor '" + tensor + "'");
  };
  if (const GgufPlace* factors = keys_.files().Find("rope_freqs.weight")) {
    if (scaled) refuse_beside("rope_freqs.weight");
    return Llama3Scaling(*factors);
  }
  if (keys_.family().rope_factors) {
    if (const GgufPlace* large = keys_.files().Find("rope_factors_long.weight")) {
      if (scaled && *type != "longrope") refuse_beside("rope_factors_long.weight");
      return LongRope(*large);
    }
    // Converters write it even where nothing is scaled.
    keys_.MaybeSize("rope.scaling.original_context_length");
  }
  const std::optional<double> old = keys_.Real("rope.scale_linear");
  if (type == nullptr && old && *old != 1) {
    return {{"rope_type", "linear"}, {"factor", ShortestDecimal(*old)}};
  }
  return scaled ? ScalingOf(*type) : json();
}

json RopeConfig::ScalingOf(const std::string& type) {
  if (type != "linear" && type != "yarn") {
    keys_.Refuse(keys_.Key("rope.scaling.type"),
                 "is '" + type + "', which is not read (linear, yarn)");
  }
  const std::optional<double> factor = keys_.Real("rope.scaling.factor");
  if (!factor || *factor <= 0) {
    keys_.metadata().Fail(keys_.Key("rope.scaling.factor"), "a positive number");
  }
  if (keys_.Real("rope.scaling.attn_factor").value_or(1) != 1) {
    keys_.Refuse(keys_.Key("rope.scaling.attn_factor"), "is not 1, which is not read");
  }
  json scaling = {{"rope_type", type}, {"factor", ShortestDecimal(*factor)}};
  if (type == "yarn") {
    scaling["original_max_position_embeddings"] =
        keys_.Size("rope.scaling.original_context_length");
  }
  return scaling;
}

std::vector<float> RopeConfig::Divisors(const GgufPlace& place) const {
  const GgufTensor& tensor = *place.tensor;
  if (tensor.type != GgmlType::kF32 || tensor.shape != std::vector<int64_t>{rotary_dim_ / 2}) {
    throw Error(
        ErrorCode::kBadInput, place.Location(),
        "should be F32 [" + std::to_string(rotary_dim_ / 2) + "]: a divisor of each frequency");
  }
  std::vector<float> stored(static_cast<size_t>(rotary_dim_ / 2));
  DecodeRow(tensor.type, place.file->Bytes(tensor), stored);
  return stored;
}

// Original contexts from which the divisors may follow: the usual ones, and the one that a divisor
// between 1 and `factor` tells. Where there is none, any does that keeps the frequencies apart.
std::vector<int64_t> OriginalContexts(const std::vector<float>& divisors, double factor,
                                      double theta) {
  constexpr double kMost = 1e9;
  std::vector<int64_t> contexts = {8192, 4096, 2048, 16384, 32768};
  double longest_kept = 0;  // wavelength
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double wavelength =
        2 * std::numbers::pi *
        std::pow(theta, static_cast<double>(i) / static_cast<double>(divisors.size()));
    if (Near(divisors[i], 1)) longest_kept = wavelength;
    if (Near(divisors[i], 1) || Near(divisors[i], factor)) continue;
    const double share = (1 / divisors[i] - 1 / factor) / (1 - 1 / factor);
    const double rotations = kLow + share * (kHigh - kLow);
    contexts.push_back(std::llround(std::clamp(rotations * wavelength, 1.0, kMost)));
    return contexts;
  }
  contexts.push_back(static_cast<int64_t>(std::min(kHigh * longest_kept, kMost)) + 1);
  return contexts;
}

// Converters write what each frequency is divided by; configurations say what those follow from.
// The largest divisor is the factor, or does as one; that all of them follow is checked.
json RopeConfig::Llama3Scaling(const GgufPlace& factors) const {
  const std::vector<float> stored = Divisors(factors);
  if (std::ranges::all_of(stored, [](float value) { return Near(value, 1); })) return nullptr;
  const double largest = *std::ranges::max_element(stored);
  const double rounded = std::round(largest * 1000) / 1000;
  const double factor = std::abs(rounded - largest) < 1e-5 * largest ? rounded : largest;
  const bool possible = std::isfinite(factor) && factor > 1 &&
                        std::ranges::all_of(stored, [](float value) { return value > 0; });
  const auto theta = config_.at("rope_theta").get<double>();
  for (const int64_t original :
       possible ? OriginalContexts(stored, factor, theta) : std::vector<int64_t>()) {
    json scaling = {{"rope_type", "llama3"},
                    {"factor", factor},
                    {"low_freq_factor", kLow},
                    {"high_freq_factor", kHigh},
                    {"original_max_position_embeddings", original}};
    const std::vector<double> divisors =
        Llama3Divisors(ConfigReader(scaling, keys_.metadata().where()), theta, rotary_dim_);
    if (std::ranges::equal(stored, divisors, Near)) return scaling;
  }
  throw Error(ErrorCode::kBadInput, factors.Location(),
              "holds divisors of rotary frequencies that follow from no known scaling");
}

json RopeConfig::LongRope(const GgufPlace& large) {
  const GgufPlace* small = keys_.files().Find("rope_factors_short.weight");
  if (small == nullptr) {
    throw Error(ErrorCode::kBadInput, large.Location(),
                "is there, and tensor 'rope_factors_short.weight' is not");
  }
  const auto decimals = [&](const GgufPlace& place) {
    json numbers = json::array();
    for (const float divisor : Divisors(place)) numbers.push_back(ShortestDecimal(divisor));
    return numbers;
  };
  const int64_t original = keys_.Size("rope.scaling.original_context_length");
  config_["original_max_position_embeddings"] = original;
  json scaling = {
      {"type", "longrope"}, {"long_factor", decimals(large)}, {"short_factor", decimals(*small)}};
  const auto context = static_cast<double>(original);
  const double factor = config_.at("max_position_embeddings").get<double>() / context;
  const double follows = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(context));
  const double amplitude = keys_.Real("rope.scaling.attn_factor").value_or(1);
  constexpr double kFloat = 1e-6;
  if (std::abs(amplitude - follows) > kFloat * follows) {
    scaling["attention_factor"] = ShortestDecimal(amplitude);
  }
  return scaling;
}

}  // namespace

void AddRopeConfig(GgufKeyReader& keys, int64_t rotary_dim, json& config) {
  const RopeConfig rope(keys, rotary_dim, config);
}

}  // namespace quantmill
