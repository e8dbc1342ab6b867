#include "quant/model/decoder_spec.h"

#include <initializer_list>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

using LinearList = std::vector<const LinearSpec*>;

// Those that are stored under a name of their own.
LinearList Named(std::initializer_list<const LinearSpec*> linears) {
  LinearList named;
  named.reserve(linears.size());
  for (const LinearSpec* linear : linears) {
    if (!linear->name.empty()) named.push_back(linear);
  }
  return named;
}

}  // namespace

const char* NameOf(Site site) {
  switch (site) {
    case Site::kAttentionIn:
      return "attention input";
    case Site::kAttentionOut:
      return "attention output";
    case Site::kMlpIn:
      return "mlp input";
    case Site::kMlpOut:
      return "mlp output";
  }
  return "?";
}

std::string NameOf(const SharedInput& input) {
  std::string name = NameOf(input.site);
  if (input.expert != SharedInput::kNoExpert) name += " of expert " + std::to_string(input.expert);
  return name;
}

void BlockSpec::FuseQueryKeyValue(const std::string& name, int64_t groups) {
  Check(query.out % groups == 0 && key.out % groups == 0 && value.out % groups == 0,
        "FuseQueryKeyValue: unequal groups");
  query_key_value = {name, query.out + key.out + value.out, query.in, query.bias};
  query_key_value_groups = groups;
  for (LinearSpec* part : {&query, &key, &value}) part->name.clear();
}

void BlockSpec::FuseGateUp(const std::string& name) {
  gate_up = {name, gate.out + up.out, gate.in, gate.bias};
  for (LinearSpec* part : {&gate, &up}) part->name.clear();
}

StoredRows BlockSpec::Stored(const LinearSpec& part) const {
  if (!part.name.empty()) return {&part, {0, part.out, part.out, 1}};
  if (&part == &gate || &part == &up) {
    return {&gate_up, {&part == &gate ? 0 : gate.out, part.out, part.out, 1}};
  }
  const int64_t groups = query_key_value_groups;
  int64_t first = 0;
  for (const LinearSpec* before : {&query, &key, &value}) {
    if (before == &part) break;
    first += before->out / groups;
  }
  return {&query_key_value, {first, part.out / groups, query_key_value.out / groups, groups}};
}

std::vector<const LinearSpec*> BlockSpec::PartsAt(Site site) const {
  switch (site) {
    case Site::kAttentionIn:
      return {&query, &key, &value};
    case Site::kAttentionOut:
      return {&output};
    case Site::kMlpIn:
      if (!gated()) return {&up};
      return {&gate, &up};
    case Site::kMlpOut:
      return {&down};
  }
  return {};
}

std::vector<SharedInput> BlockSpec::SharedInputs() const {
  std::vector<SharedInput> inputs;
  for (const Site site : kSites) {
    if (!LinearsAt(site).empty()) inputs.emplace_back(site);
  }
  for (int64_t e = 0; e < std::ssize(mixture.experts); ++e) inputs.emplace_back(Site::kMlpOut, e);
  return inputs;
}

std::vector<const LinearSpec*> BlockSpec::LinearsAt(const SharedInput& input) const {
  if (input.expert != SharedInput::kNoExpert) {
    return {&mixture.experts[static_cast<size_t>(input.expert)].down};
  }
  std::vector<const LinearSpec*> linears = DenseLinearsAt(input.site);
  if (input.site == Site::kMlpIn) {
    for (const MlpSpec& expert : mixture.experts) {
      linears.push_back(&expert.gate);
      linears.push_back(&expert.up);
    }
  }
  return linears;
}

std::vector<const LinearSpec*> BlockSpec::DenseLinearsAt(Site site) const {
  switch (site) {
    case Site::kAttentionIn:
      return Named({&query_key_value, &query, &key, &value});
    case Site::kAttentionOut:
      return {&output};
    case Site::kMlpIn:
      return Named({&gate_up, &gate, &up});
    case Site::kMlpOut:
      return Named({&down});
  }
  return {};
}

std::vector<const LinearSpec*> BlockSpec::Linears() const {
  std::vector<const LinearSpec*> all;
  for (const Site site : kSites) {
    for (const LinearSpec* linear : DenseLinearsAt(site)) all.push_back(linear);
  }
  for (const MlpSpec& expert : mixture.experts) {
    for (const LinearSpec* linear : {&expert.gate, &expert.up, &expert.down}) all.push_back(linear);
  }
  return all;
}

std::vector<std::vector<const LinearSpec*>> BlockSpec::FusedLinears() const {
  std::vector<std::vector<const LinearSpec*>> sets;
  for (const Site site : kSites) {
    if (auto linears = DenseLinearsAt(site); !linears.empty()) sets.push_back(std::move(linears));
  }
  if (!is_mixture()) return sets;
  const std::vector<const LinearSpec*> all = Linears();
  const auto experts = 3 * std::ssize(mixture.experts);
  sets.emplace_back(all.end() - experts, all.end());
  return sets;
}

std::vector<const LinearSpec*> BlockSpec::RoutingLinears() const {
  if (!is_mixture()) return {};
  if (mixture.shared_gate.name.empty()) return {&mixture.router};
  return {&mixture.router, &mixture.shared_gate};
}

std::vector<const LinearSpec*> DecoderSpec::Linears() const {
  std::vector<const LinearSpec*> all;
  for (const BlockSpec& block : blocks) {
    for (const LinearSpec* linear : block.Linears()) all.push_back(linear);
  }
  return all;
}

void DecoderSpec::DropBasePrefix() {
  base_dropped = true;
  const auto drop = [this](std::string& name) {
    if (name.starts_with(base_prefix)) name.erase(0, base_prefix.size());
  };
  for (std::string* name :
       {&embedding, &project_in.name, &position_embedding, &embedding_norm, &embedding_norm_bias,
        &final_norm, &final_norm_bias, &project_out.name, &lm_head.name}) {
    drop(*name);
  }
  for (BlockSpec& block : blocks) {
    for (std::string* name :
         {&block.prefix, &block.attention, &block.attention_norm, &block.attention_norm_bias,
          &block.mlp_norm, &block.mlp_norm_bias, &block.query_norm, &block.key_norm}) {
      drop(*name);
    }
    for (LinearSpec* linear :
         {&block.query_key_value, &block.query, &block.key, &block.value, &block.output,
          &block.gate_up, &block.gate, &block.up, &block.down}) {
      drop(linear->name);
    }
    Check(!block.is_mixture(), "DropBasePrefix: a mixture");
  }
}

std::vector<std::string> DecoderSpec::LoaderNames(const std::vector<std::string>& modules) const {
  std::vector<std::string> names = modules;
  if (!base_dropped) return names;
  for (const std::string& module : modules) names.push_back(base_prefix + module);
  return names;
}

std::vector<const LinearSpec*> DecoderSpec::Projections() const {
  std::vector<const LinearSpec*> all;
  for (const LinearSpec* linear : {&project_in, &project_out}) {
    if (!linear->name.empty()) all.push_back(linear);
  }
  return all;
}

}  // namespace quantmill
