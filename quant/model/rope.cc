#include "quant/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace quantmill {
namespace {

std::vector<double> PlainFrequencies(double theta, int64_t rotary_dim) {
  std::vector<double> inv(static_cast<size_t>(rotary_dim / 2));
  for (size_t i = 0; i < inv.size(); ++i) {
    inv[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
  }
  return inv;
}

// YaRN (Peng et al. 2023), as transformers computes it. Returns the amplitude.
double ScaleYarn(const ConfigReader& scaling, double theta, int64_t max_positions,
                 std::vector<double>& inv) {
  const double factor = scaling.Number("factor");
  const auto dim = static_cast<double>(2 * inv.size());
  const double original =
      scaling.NumberOr("original_max_position_embeddings", static_cast<double>(max_positions));
  if (factor <= 0) scaling.Fail("factor", "must be positive");
  const auto correction = [&](double rotations) {
    return dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = correction(scaling.NumberOr("beta_fast", 32));
  double high = correction(scaling.NumberOr("beta_slow", 1));
  if (scaling.BoolOr("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;  // as transformers: no division by zero
  for (size_t i = 0; i < inv.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv[i] = inv[i] / factor * ramp + inv[i] * (1 - ramp);
  }
  const auto get_mscale = [&](double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
  };
  if (scaling.Has("attention_factor")) return scaling.Number("attention_factor");
  if (scaling.Has("mscale") && scaling.Has("mscale_all_dim")) {
    return get_mscale(scaling.Number("mscale")) / get_mscale(scaling.Number("mscale_all_dim"));
  }
  return get_mscale(1.0);
}

std::vector<double> Factors(const ConfigReader& scaling, const char* key, size_t count) {
  const auto found = scaling.json().find(key);
  const bool fits = found != scaling.json().end() && found->is_array() && found->size() == count;
  if (!fits) scaling.Fail(key, "needs " + std::to_string(count) + " numbers");
  std::vector<double> factors;
  for (const nlohmann::json& factor : *found) {
    if (!factor.is_number() || !(factor.get<double>() > 0)) {
      scaling.Fail(key, "needs positive numbers, found " + factor.dump());
    }
    factors.push_back(factor.get<double>());
  }
  return factors;
}

// LongRoPE (Ding et al. 2024), as transformers computes it: each frequency is divided by a factor
// of its own, by others in sequences longer than the original context. Returns the amplitude.
double ScaleLong(const ConfigReader& scaling, const ConfigReader& config, int64_t max_positions,
                 std::vector<double>& inv, RopeSpec& rope) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  rope.original_positions =
      config.Has(kOriginal) ? config.Size(kOriginal) : scaling.Size(kOriginal);
  const std::vector<double> small = Factors(scaling, "short_factor", inv.size());
  const std::vector<double> large = Factors(scaling, "long_factor", inv.size());
  for (size_t i = 0; i < inv.size(); ++i) {
    rope.long_inv_freq.push_back(static_cast<float>(inv[i] / large[i]));
    inv[i] /= small[i];
  }
  const auto original = static_cast<double>(rope.original_positions);
  const double factor = scaling.NumberOr("factor", static_cast<double>(max_positions) / original);
  if (scaling.Has("attention_factor")) return scaling.Number("attention_factor");
  return factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original));
}

}  // namespace

RopeScaling FindRopeScaling(const ConfigReader& config) {
  const std::optional<ConfigReader> modern = config.Child("rope_parameters");
  RopeScaling rope;
  const std::optional<ConfigReader> settings = modern ? modern : config.Child("rope_scaling");
  rope.theta = settings && settings->Has("rope_theta") ? settings->Number("rope_theta")
                                                       : config.NumberOr("rope_theta", 10000);
  if (rope.theta <= 1) config.Fail("rope_theta", "must exceed 1");
  if (settings) {
    rope.type = settings->TextOr("rope_type", settings->TextOr("type", modern ? "default" : ""));
    rope.settings.emplace(*settings);
  }
  return rope;
}

RopeScaling FindMainRopeScaling(const ConfigReader& config) {
  const std::optional<ConfigReader> all = config.Child("rope_parameters");
  const std::optional<ConfigReader> own = all ? all->Child("full_attention") : std::nullopt;
  if (!own) return FindRopeScaling(config);
  return {own->NumberOr("rope_theta", 10000), own->TextOr("rope_type", "default"), *own};
}

bool IsPlain(const RopeSpec& rope) {
  const std::vector<double> plain = PlainFrequencies(rope.theta, rope.rotary_dim);
  return rope.amplitude == 1 && rope.long_inv_freq.empty() &&
         std::equal(plain.begin(), plain.end(), rope.inv_freq.begin(), rope.inv_freq.end(),
                    [](double f, float stored) { return static_cast<float>(f) == stored; });
}

std::vector<double> Llama3Divisors(const ConfigReader& scaling, double theta, int64_t rotary_dim) {
  const double factor = scaling.Number("factor");
  const double low = scaling.Number("low_freq_factor");
  const double high = scaling.Number("high_freq_factor");
  const double original = scaling.Number("original_max_position_embeddings");
  if (factor <= 0 || high <= low) scaling.Fail("high_freq_factor", "must exceed low_freq_factor");
  std::vector<double> divisors = PlainFrequencies(theta, rotary_dim);
  for (double& f : divisors) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < original / high) {
      f = 1;
    } else if (wavelength > original / low) {
      f = factor;
    } else {
      const double t = (original / wavelength - low) / (high - low);
      f = 1 / ((1 - t) / factor + t);
    }
  }
  return divisors;
}

RopeSpec ReadRope(const ConfigReader& config, int64_t head_dim, int64_t max_positions) {
  const std::optional<ConfigReader> modern = config.Child("rope_parameters");
  const RopeScaling scaling = FindRopeScaling(config);
  const ConfigReader& partial = modern && modern->Has("partial_rotary_factor") ? *modern : config;
  const double fraction = partial.NumberOr("partial_rotary_factor", 1.0);
  const auto rotary_dim = static_cast<int64_t>(static_cast<double>(head_dim) * fraction);
  if (rotary_dim <= 0 || rotary_dim > head_dim || rotary_dim % 2 != 0) {
    config.Fail("partial_rotary_factor", "gives a rotary width that is not even and within a head");
  }
  return MakeRope(scaling, rotary_dim, max_positions, config);
}

RopeSpec MakeRope(const RopeScaling& scaling, int64_t rotary_dim, int64_t max_positions,
                  const ConfigReader& config) {
  constexpr int64_t kWidest = 1 << 16;  // the table is made before shapes are checked
  if (rotary_dim > kWidest) {
    config.Fail("head_dim", std::to_string(rotary_dim) + " rotated elements are out of range");
  }
  const double theta = scaling.theta;
  RopeSpec rope;
  rope.rotary_dim = rotary_dim;
  rope.theta = theta;
  std::vector<double> inv = PlainFrequencies(theta, rope.rotary_dim);
  double amplitude = 1;
  if (scaling.type == "linear") {
    const double factor = scaling.settings->Number("factor");
    if (factor <= 0) scaling.settings->Fail("factor", "must be positive");
    for (double& f : inv) f /= factor;
  } else if (scaling.type == "llama3") {
    const std::vector<double> divisors = Llama3Divisors(*scaling.settings, theta, rope.rotary_dim);
    for (size_t i = 0; i < inv.size(); ++i) inv[i] /= divisors[i];
  } else if (scaling.type == "yarn") {
    amplitude = ScaleYarn(*scaling.settings, theta, max_positions, inv);
  } else if (scaling.type == "longrope" || scaling.type == "su") {
    amplitude = ScaleLong(*scaling.settings, config, max_positions, inv, rope);
  } else if (scaling.type != "default") {
    scaling.settings->Fail("rope_type", "'" + scaling.type +
                                            "' is not supported (default, linear, llama3, yarn, "
                                            "longrope)");
  }
  rope.inv_freq.assign(inv.begin(), inv.end());
  rope.amplitude = static_cast<float>(amplitude);
  return rope;
}

}  // namespace quantmill
