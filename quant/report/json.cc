#include "quant/report/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace quantmill {
namespace {

using Json = nlohmann::ordered_json;

template <typename T, typename ToItem>
Json Array(const std::vector<T>& items, ToItem to_item) {
  Json array = Json::array();
  for (const T& item : items) array.push_back(to_item(item));
  return array;
}

Json NullIfAbsent(const std::optional<double>& value) { return value ? Json(*value) : Json(); }
Json NullIfEmpty(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json ToJson(const Event& e) {
  return {{"kind", e.kind}, {"where", e.where}, {"what", e.what}, {"is_fallback", e.is_fallback}};
}

Json ToJson(const LayerResult& l) {
  return {{"name", l.name},
          {"scheme", l.scheme},
          {"relative_error", l.relative_error},
          {"rounded_error", l.rounded_error},
          {"target_strength", l.target_strength},
          {"weight_error", l.weight_error}};
}

Json ToJson(const MixtureCoverage& m) {
  return {{"block", m.block}, {"top_k", m.top_k}, {"tokens", m.tokens}};
}

Json ToJson(const PhaseSeconds& s) {
  return {
      {"total", s.total},           {"load", s.load},   {"fold", s.fold},   {"forward", s.forward},
      {"statistics", s.statistics}, {"solve", s.solve}, {"write", s.write}, {"verify", s.verify}};
}

Json ToJson(const VerifiedLayer& l) {
  return {{"name", l.name},
          {"scheme", l.scheme},
          {"weight_error", NullIfAbsent(l.weight_error)},
          {"recorded_error", NullIfAbsent(l.recorded_error)}};
}

Json ToJson(const ProtocolDescription& p) {
  return {{"name", p.name},
          {"window", p.window},
          {"windows", p.windows},
          {"bos", p.bos},
          {"text", p.text},
          {"tokens_sha256", p.tokens_sha256},
          {"text_tokens", p.text_tokens},
          {"compute", p.compute},
          {"kv_cache", p.kv_cache}};
}

Json ToJson(const EvaluatedModel& m) {
  Json json = {
      {"path", m.path},
      {"weights", m.weights},
      {"perplexity", m.perplexity},
      {"perplexity_ci95", Json::array({m.perplexity_ci95.first, m.perplexity_ci95.second})},
      {"tokens", m.tokens},
      {"tokens_per_second", m.tokens_per_second},
      {"file_bytes", m.file_bytes}};
  using Divergence = EvaluatedModel::Divergence;
  const auto add = [&](const char* key, double Divergence::*field) {
    json[key] = m.divergence ? Json((*m.divergence).*field) : Json();
  };
  add("kl_mean", &Divergence::kl_mean);
  add("kl_ci95", &Divergence::kl_ci95);
  add("kl_p99", &Divergence::kl_p99);
  add("kl_max", &Divergence::kl_max);
  add("top1_agreement", &Divergence::top1_agreement);
  add("flips", &Divergence::flips);
  add("delta_nll", &Divergence::delta_nll);
  add("delta_nll_ci95", &Divergence::delta_nll_ci95);
  return json;
}

Json ToJson(const InspectedTensorGroup& g) {
  return {{"what", g.what},
          {"dtype", g.dtype},
          {"tensors", g.tensors},
          {"bytes", g.bytes},
          {"parameters", g.parameters}};
}

}  // namespace

Json ToJson(const InspectReport& r) {
  return {{"path", r.path},
          {"architecture", r.architecture},
          {"format", r.format},
          {"layers", r.layers},
          {"hidden", r.hidden},
          {"ffn", r.ffn},
          {"heads", r.heads},
          {"kv_heads", r.kv_heads},
          {"head_dim", r.head_dim},
          {"vocab", r.vocab},
          {"max_positions", r.max_positions},
          {"tied", r.tied},
          {"kv_cache", r.kv_cache},
          {"parameters", r.parameters},
          {"bytes", r.bytes},
          {"bits_per_weight", r.bits_per_weight > 0 ? Json(r.bits_per_weight) : Json()},
          {"files", r.files},
          {"groups", Array(r.groups, [](const auto& group) { return ToJson(group); })},
          {"unknown_tensors", r.unknown_tensors}};
}

Json ToJson(const BudgetOutcome& budget) {
  return {{"asked", budget.asked},
          {"limit", budget.limit},
          {"measured", NullIfAbsent(budget.measured)},
          {"average_bits", budget.average_bits}};
}

Json ToJson(const MemoryPlan& plan) {
  const auto items = [](const std::vector<PlanItem>& of) {
    return Array(of, [](const PlanItem& item) {
      return Json{{"what", item.what}, {"bytes", item.bytes}};
    });
  };
  const Json gpu = plan.gpu_items.empty()
                       ? Json()
                       : Json{{"items", items(plan.gpu_items)}, {"total_bytes", plan.gpu_bytes}};
  return {{"items", items(plan.items)},
          {"total_bytes", plan.total_bytes},
          {"notes", plan.notes},
          {"gpu", gpu}};
}

Json ToJson(const PlanReport& r) {
  Json json = {{"model", r.model},
               {"method", r.method},
               {"format", r.format},
               {"layers", Array(r.layers,
                                [](const PlannedLayers& line) {
                                  return Json{{"layers", line.layers},
                                              {"scheme", line.scheme},
                                              {"count", line.count},
                                              {"weights", line.weights},
                                              {"bytes", line.bytes}};
                                })},
               {"average_bits", r.average_bits},
               {"input_bytes", r.input_bytes},
               {"output_bytes", r.output_bytes},
               {"calibration_tokens", r.calibration_tokens},
               {"memory_plan", ToJson(r.memory)},
               {"budget", NullIfEmpty(r.budget)},
               {"predicted_kl", r.predicted_kl ? Json(*r.predicted_kl) : Json()},
               {"estimated_seconds", r.seconds ? ToJson(*r.seconds) : Json()},
               {"events", Array(r.events, [](const Event& event) { return ToJson(event); })},
               {"sensitivity", nullptr}};
  if (!r.sensitivity) return json;
  json["sensitivity"] = {
      {"candidates", r.sensitivity->candidates},
      {"groups", Array(r.sensitivity->groups, [](const SensitivityTable::Group& group) {
         return Json{{"layers", group.layers},
                     {"weights", group.weights},
                     {"predicted_kl", group.predicted_kl}};
       })}};
  return json;
}

Json ToJson(const QuantizeReport& r) {
  const auto fallbacks = std::count_if(r.events.begin(), r.events.end(),
                                       [](const Event& event) { return event.is_fallback; });
  return {{"output", r.output},
          {"method", r.method},
          {"format", r.format},
          {"compute", r.compute},
          {"backend", r.backend},
          {"calibration_tokens", r.calibration_tokens},
          {"planned_bytes", r.planned_bytes},
          {"peak_rss_bytes", r.peak_rss_bytes},
          {"planned_gpu_bytes", r.planned_gpu_bytes},
          {"peak_gpu_bytes", r.peak_gpu_bytes},
          {"input_bytes", r.input_bytes},
          {"output_bytes", r.output_bytes},
          {"budget", r.budget ? ToJson(*r.budget) : Json()},
          {"seconds", ToJson(r.seconds)},
          {"fallbacks", fallbacks},
          {"layers", Array(r.layers, [](const auto& layer) { return ToJson(layer); })},
          {"mixtures", Array(r.mixtures, [](const auto& mixture) { return ToJson(mixture); })},
          {"events", Array(r.events, [](const auto& event) { return ToJson(event); })}};
}

Json ToJson(const ConvertReport& r) {
  return {{"input", r.input},
          {"output", r.output},
          {"from", r.from},
          {"to", r.to},
          {"layers", r.layers},
          {"input_bytes", r.input_bytes},
          {"output_bytes", r.output_bytes},
          {"seconds", r.seconds}};
}

Json ToJson(const VerifyReport& r) {
  return {{"artifact", r.artifact},
          {"reference", NullIfEmpty(r.reference)},
          {"format", r.format},
          {"passed", r.passed()},
          {"bytes_checked", r.bytes_checked},
          {"tensors", r.tensors},
          {"fallbacks", r.fallbacks ? Json(*r.fallbacks) : Json()},
          {"seconds", r.seconds},
          {"problems", Array(r.problems,
                             [](const Problem& problem) {
                               return Json{{"where", problem.where}, {"what", problem.what}};
                             })},
          {"layers", Array(r.layers, [](const auto& layer) { return ToJson(layer); })}};
}

Json ToJson(const EvalReport& r) {
  const auto model_json = [&](const EvaluatedModel& model) {
    Json json = ToJson(model);
    if (r.protocol.windows > 1) return json;
    // One window tells nothing of how others differ.
    for (const char* key : {"perplexity_ci95", "kl_ci95", "delta_nll_ci95"}) json[key] = Json();
    return json;
  };
  return {{"protocol", ToJson(r.protocol)},
          {"backend", r.backend},
          {"reference", NullIfEmpty(r.reference)},
          {"reference_scores", r.reference_scores ? model_json(*r.reference_scores) : Json()},
          {"models", Array(r.models, model_json)},
          {"seconds", r.seconds},
          {"peak_rss_bytes", r.peak_rss_bytes}};
}

Json ToJson(const BenchReport& r) {
  const auto row_json = [](const BenchRow& row) {
    return Json{{"batch", row.batch},
                {"first_token", row.first_token},
                {"token", row.token},
                {"token_p99", row.token_p99},
                {"tokens_per_second", row.tokens_per_second},
                {"bandwidth_share", NullIfAbsent(row.bandwidth_share)},
                {"speedup_first_token", NullIfAbsent(row.speedup_first_token)},
                {"speedup", NullIfAbsent(row.speedup)}};
  };
  const auto model_json = [&](const BenchedModel& model) {
    return Json{{"path", model.path},
                {"weights", model.weights},
                {"kv_cache", model.kv_cache},
                {"file_bytes", model.file_bytes},
                {"weight_bytes", model.weight_bytes},
                {"read_bandwidth", NullIfAbsent(model.read_bandwidth)},
                {"rows", Array(model.rows, row_json)}};
  };
  return {{"prompt_tokens", r.prompt_tokens},
          {"decode_tokens", r.decode_tokens},
          {"runs", r.runs},
          {"compute", r.compute},
          {"backend", r.backend},
          {"reference", NullIfEmpty(r.reference)},
          {"models", Array(r.models, model_json)},
          {"seconds", r.seconds},
          {"peak_rss_bytes", r.peak_rss_bytes}};
}

Json ToJson(const GateReport& r) {
  constexpr const char* kUnits[] = {"number", "share", "bytes", "count"};
  return {{"artifact", r.artifact},
          {"reference", r.reference},
          {"limits", r.limits},
          {"strict", r.strict},
          {"passed", r.passed()},
          {"checks", Array(r.checks,
                           [&](const GateCheck& check) {
                             return Json{{"key", check.key},
                                         {"unit", kUnits[static_cast<size_t>(check.unit)]},
                                         {"bound", check.at_least ? ">=" : "<="},
                                         {"limit", check.limit},
                                         {"measured", NullIfAbsent(check.measured)},
                                         {"half_width", NullIfAbsent(check.half_width)},
                                         {"passed", check.passed},
                                         {"note", NullIfEmpty(check.note)}};
                           })},
          {"verified", ToJson(r.verified)},
          {"evaluated", r.evaluated ? ToJson(*r.evaluated) : Json()},
          {"benched", r.benched ? ToJson(*r.benched) : Json()},
          {"seconds", r.seconds}};
}

std::string JsonText(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace quantmill
