#include "quant/model/decoder_spec.h"

#include <initializer_list>

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

std::vector<const LinearSpec*> BlockSpec::LinearsAt(Site site) const {
  switch (site) {
    case Site::kAttentionIn:
      return Named({&query_key_value, &query, &key, &value});
    case Site::kAttentionOut:
      return {&output};
    case Site::kMlpIn:
      return Named({&gate_up, &gate, &up});
    case Site::kMlpOut:
      return {&down};
  }
  return {};
}

std::vector<const LinearSpec*> BlockSpec::Linears() const {
  return Named({&query_key_value, &query, &key, &value, &output, &gate_up, &gate, &up, &down});
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
