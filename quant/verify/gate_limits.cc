#include "quant/verify/gate_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <span>
#include <string_view>
#include <utility>

#include "formats/file.h"
#include "kernels/core/error.h"
#include "quant/report/strict_yaml.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

using Unit = GateCheck::Unit;
using Divergence = EvaluatedModel::Divergence;

constexpr uint64_t kMaxLimitsBytes = 1 << 20;
constexpr const char* kMaxFallbacks = "max_fallbacks";

struct Measure {
  double value = 0;
  std::optional<double> half_width;
};

const EvaluatedModel& Evaluated(const GateFacts& facts) { return facts.evaluated->models.front(); }
const Divergence& DivergenceOf(const GateFacts& facts) {
  const std::optional<Divergence>& divergence = Evaluated(facts).divergence;
  Check(divergence.has_value(), "gate: a model without its divergence");
  return *divergence;
}

// What can be limited, and the work that tells it.
enum class Source : uint8_t { kFile, kEvaluation, kSpeeds };
struct Limited {
  const char* key;
  Unit unit;
  bool at_least;
  Source source;
  Measure (*measure)(const GateFacts& facts);
};

Measure Kl(const GateFacts& f) { return {DivergenceOf(f).kl_mean, DivergenceOf(f).kl_ci95}; }
Measure KlP99(const GateFacts& f) { return {DivergenceOf(f).kl_p99, {}}; }
Measure KlMax(const GateFacts& f) { return {DivergenceOf(f).kl_max, {}}; }
Measure Perplexity(const GateFacts& f) {
  // Its interval is that of a logarithm: of both sides the wider one, upwards.
  const EvaluatedModel& model = Evaluated(f);
  return {model.perplexity, model.perplexity_ci95.second - model.perplexity};
}
// Paired on the same tokens, so that its interval is that of the difference.
Measure PerplexityIncrease(const GateFacts& f) {
  const Divergence& d = DivergenceOf(f);
  const double increase = std::expm1(d.delta_nll);
  return {increase, std::expm1(d.delta_nll + d.delta_nll_ci95) - increase};
}
Measure Top1Agreement(const GateFacts& f) { return {DivergenceOf(f).top1_agreement, {}}; }
Measure Flips(const GateFacts& f) { return {DivergenceOf(f).flips, {}}; }
Measure Speedup(const GateFacts& f) {
  // The reference itself has none.
  return {f.benched->models.front().rows.front().speedup.value_or(1), {}};
}
Measure WeightBytes(const GateFacts& f) { return {static_cast<double>(f.weight_bytes), {}}; }

constexpr Limited kLimited[] = {
    {"kl", Unit::kNumber, false, Source::kEvaluation, Kl},
    {"kl_p99", Unit::kNumber, false, Source::kEvaluation, KlP99},
    {"kl_max", Unit::kNumber, false, Source::kEvaluation, KlMax},
    {"perplexity", Unit::kNumber, false, Source::kEvaluation, Perplexity},
    {"perplexity_increase", Unit::kShare, false, Source::kEvaluation, PerplexityIncrease},
    {"top1_agreement", Unit::kShare, true, Source::kEvaluation, Top1Agreement},
    {"flips", Unit::kShare, false, Source::kEvaluation, Flips},
    {"speedup", Unit::kNumber, true, Source::kSpeeds, Speedup},
    {"weight_bytes", Unit::kBytes, false, Source::kFile, WeightBytes},
};

const Limited* FindLimited(std::string_view key) {
  const auto* found =
      std::ranges::find_if(kLimited, [&](const Limited& l) { return key == l.key; });
  return found == std::end(kLimited) ? nullptr : found;
}

bool Needs(const std::vector<GateLimits::Limit>& limits, Source source) {
  return std::ranges::any_of(limits, [&](const GateLimits::Limit& limit) {
    return FindLimited(limit.key)->source == source;
  });
}

// ---- the file ----

double ReadShare(const YAML::Node& node, const YamlPlace& place) {
  const std::string& text = YamlScalar(node, place, "a share such as 1% or 0.01");
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const std::string_view unit(error == std::errc() ? rest : text.data(), end);
  if (!unit.empty() && unit != "%" && unit != " %") {
    RefuseYaml(place, node.Mark(), fmt::format("'{}' is no share such as 1% or 0.01", text));
  }
  return unit.empty() ? value : value / 100;
}

double ReadLimit(const Limited& limited, const YAML::Node& node, const YamlPlace& place) {
  if (limited.unit == Unit::kBytes) {
    const std::string& text = YamlScalar(node, place, "a size such as 120MB");
    return static_cast<double>(ParseByteSize(text, place.At(node.Mark())));
  }
  const bool share = limited.unit == Unit::kShare;
  const double value = share ? ReadShare(node, place) : YamlNumber<double>(node, place);
  if (!(value >= 0) || std::isinf(value)) RefuseYaml(place, node.Mark(), "must be 0 or more");
  if (share && limited.at_least && value > 1) {
    RefuseYaml(place, node.Mark(), "is a share: at most 100%");
  }
  return value;
}

std::string ReadWord(const YAML::Node& node, const YamlPlace& place,
                     std::span<const char* const> words) {
  const std::string& text = YamlScalar(node, place, "a word");
  if (std::ranges::find(words, text) == words.end()) {
    RefuseYaml(place, node.Mark(), fmt::format("'{}' is none of {}", text, fmt::join(words, ", ")));
  }
  return text;
}

int64_t ReadCount(const YAML::Node& node, const YamlPlace& place, int64_t least) {
  const auto value = YamlNumber<int64_t>(node, place);
  if (value < least) RefuseYaml(place, node.Mark(), fmt::format("must be {} or more", least));
  return value;
}

std::string ReadSha256(const YAML::Node& node, const YamlPlace& place) {
  const std::string& text = YamlScalar(node, place, "64 hexadecimal digits");
  const bool valid = text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
  if (!valid) RefuseYaml(place, node.Mark(), "is no SHA-256: 64 hexadecimal digits, small letters");
  return text;
}

// What is no limit, but says what the limits are of.
void ReadSetting(const std::string& name, const YAML::Node& node, const YamlPlace& place,
                 GateLimits& limits) {
  constexpr const char* kProtocols[] = {"windows", "llamacpp"};
  constexpr const char* kComputes[] = {"f32", "bf16"};
  if (name == kMaxFallbacks) {
    limits.max_fallbacks = ReadCount(node, place, 0);
  } else if (name == "strict") {
    limits.strict = YamlBool(node, place);
  } else if (name == "protocol") {
    limits.protocol = ReadWord(node, place, kProtocols);
  } else if (name == "window") {
    limits.window = ReadCount(node, place, 2);
  } else if (name == "max_windows") {
    limits.max_windows = ReadCount(node, place, 1);
  } else if (name == "compute") {
    limits.compute = ReadWord(node, place, kComputes);
  } else if (name == "tokens_sha256") {
    limits.tokens_sha256 = ReadSha256(node, place);
  } else if (name == "batch") {
    limits.batch = ReadCount(node, place, 1);
  } else if (name == "prompt_tokens") {
    limits.prompt_tokens = ReadCount(node, place, 1);
  } else {
    limits.decode_tokens = ReadCount(node, place, 2);
  }
}

std::vector<std::string> KnownKeys() {
  std::vector<std::string> known;
  for (const Limited& limited : kLimited) known.emplace_back(limited.key);
  for (const char* key : {kMaxFallbacks, "strict", "protocol", "window", "max_windows", "compute",
                          "tokens_sha256", "batch", "prompt_tokens", "decode_tokens"}) {
    known.emplace_back(key);
  }
  return known;
}

// ---- the verdict ----

// "<=" or ">=" as the limit has it; false for NaN.
bool Keeps(const GateCheck& check, double value) {
  return check.at_least ? value >= check.limit : value <= check.limit;
}

void Judge(const Measure& measure, bool strict, GateCheck& check) {
  check.measured = measure.value;
  check.half_width = measure.half_width;
  const double width = measure.half_width.value_or(0);
  const double worse = check.at_least ? measure.value - width : measure.value + width;
  const double better = check.at_least ? measure.value + width : measure.value - width;
  check.passed = Keeps(check, strict ? worse : measure.value);
  if (std::isnan(measure.value)) {
    check.note = "is no number";
  } else if (Keeps(check, better) && !Keeps(check, worse)) {
    check.note = "the limit lies inside the 95 % interval: more text would decide";
  }
}

GateCheck CheckLimit(const Limited& limited, double limit, bool strict, const GateFacts& facts) {
  GateCheck check{limited.key, limited.unit, limited.at_least, limit, {}, {}, false, {}};
  const bool evaluated = limited.source == Source::kEvaluation;
  if ((evaluated && facts.evaluated == nullptr) ||
      (limited.source == Source::kSpeeds && facts.benched == nullptr)) {
    check.note = facts.why_not_run;
    return check;
  }
  Measure measure = limited.measure(facts);
  const bool unknown = measure.half_width && facts.evaluated->protocol.windows < 2;
  if (unknown) measure.half_width.reset();
  Judge(measure, strict, check);
  if (strict && unknown) {
    check.passed = false;
    check.note = "one window has no interval, which 'strict' needs";
  }
  return check;
}

GateCheck CheckFallbacks(const GateLimits& limits, const GateFacts& facts) {
  GateCheck check{kMaxFallbacks, Unit::kCount, false, 0, {}, {}, false, {}};
  check.limit = static_cast<double>(limits.max_fallbacks.value_or(0));
  if (facts.fallbacks) {
    Judge({static_cast<double>(*facts.fallbacks), {}}, limits.strict, check);
    return check;
  }
  check.passed = !limits.max_fallbacks;
  check.note = "no quantmill.json of the artifact tells";
  return check;
}

}  // namespace

bool GateLimits::need_evaluation() const { return Needs(limits, Source::kEvaluation); }
bool GateLimits::need_speeds() const { return Needs(limits, Source::kSpeeds); }

GateLimits LoadGateLimits(const std::string& path) {
  return ParseGateLimits(ReadTextFile(path, kMaxLimitsBytes), path);
}

GateLimits ParseGateLimits(const std::string& yaml, const std::string& path) {
  const YamlPlace place{path, ""};
  const YAML::Node root = ParseYamlMap(yaml, place, "a file of limits");
  GateLimits limits;
  limits.path = path;
  VisitYamlMap(root, place, KnownKeys(),
               [&](const std::string& name, const YAML::Node& node, const YamlPlace& inner) {
                 const Limited* limited = FindLimited(name);
                 if (limited == nullptr) return ReadSetting(name, node, inner, limits);
                 limits.limits.push_back({name, ReadLimit(*limited, node, inner)});
               });
  if (limits.limits.empty() && !limits.max_fallbacks) {
    RefuseYaml(place, root.Mark(), "has no limit, such as 'kl: 0.05'");
  }
  return limits;
}

std::vector<GateCheck> CheckLimits(const GateLimits& limits, const GateFacts& facts) {
  std::vector<GateCheck> checks;
  checks.reserve(limits.limits.size() + 1);
  for (const GateLimits::Limit& limit : limits.limits) {
    checks.push_back(CheckLimit(*FindLimited(limit.key), limit.value, limits.strict, facts));
  }
  checks.push_back(CheckFallbacks(limits, facts));
  return checks;
}

}  // namespace quantmill
