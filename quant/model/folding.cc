#include "quant/model/folding.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/core/error.h"
#include "quant/model/activation.h"

namespace quantmill {
namespace {

constexpr size_t kDigits = 4;  // of one BF16

const char* KeyOf(Site site) {
  switch (site) {
    case Site::kAttentionIn:
      return "attention_in";
    case Site::kAttentionOut:
      return "attention_out";
    case Site::kMlpIn:
      return "mlp_in";
    case Site::kMlpOut:
      return "mlp_out";
  }
  return "?";
}

std::string KeyOf(const SharedInput& input) {
  std::string key = KeyOf(input.site);
  if (input.expert != SharedInput::kNoExpert) key += "." + std::to_string(input.expert);
  return key;
}

std::string Hex(const std::vector<BF16>& values) {
  constexpr const char* kHex = "0123456789abcdef";
  std::string text;
  text.reserve(values.size() * kDigits);
  for (const BF16 value : values) {
    for (const int shift : {12, 8, 4, 0}) text += kHex[(value.bits >> shift) & 0xF];
  }
  return text;
}

[[noreturn]] void Fail(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where,
              "'folding': " + what + "; the record is damaged, so nothing in it can be checked");
}

std::vector<BF16> Unhex(const std::string& text, const std::string& key, const std::string& where) {
  std::vector<BF16> values(text.size() / kDigits);
  for (size_t i = 0; i < values.size(); ++i) {
    const char* begin = text.data() + i * kDigits;
    const auto [end, error] = std::from_chars(begin, begin + kDigits, values[i].bits, 16);
    if (error != std::errc() || end != begin + kDigits) {
      Fail(where, "value " + std::to_string(i) + " of '" + key + "' is no hexadecimal number");
    }
    const float value = ToFloat(values[i]);
    if (!std::isfinite(value) || value <= 0) {
      Fail(where, "value " + std::to_string(i) + " of '" + key + "' is not positive and finite");
    }
  }
  return values;
}

}  // namespace

const std::vector<BF16>& BlockFolding::at(const SharedInput& input) const {
  static const std::vector<BF16> kOnes;
  const auto found = scales_.find(input);
  return found == scales_.end() ? kOnes : found->second;
}

bool BlockFolding::identity() const {
  return std::ranges::all_of(scales_, [](const auto& entry) { return entry.second.empty(); });
}

bool IsFoldable(const DecoderSpec& spec, const BlockSpec& block, const SharedInput& input) {
  if (input.expert != SharedInput::kNoExpert) return true;
  switch (input.site) {
    case Site::kAttentionIn:
    case Site::kMlpIn:
      return spec.order != BlockOrder::kPostNorm && block.attention_norm != block.mlp_norm;
    case Site::kAttentionOut:
      return true;
    case Site::kMlpOut:
      return block.gated() || CommutesWithScales(spec.activation);
  }
  return false;
}

int64_t FoldedWidth(const DecoderSpec& spec, const BlockSpec& block, const SharedInput& input) {
  if (input.site == Site::kAttentionOut) return spec.kv_heads * spec.head_dim;
  return block.LinearsAt(input).front()->in;
}

int64_t FoldedIndex(const DecoderSpec& spec, Site site, int64_t column) {
  if (site != Site::kAttentionOut) return column;
  const int64_t head = column / spec.head_dim;
  return head / (spec.heads / spec.kv_heads) * spec.head_dim + column % spec.head_dim;
}

nlohmann::json FoldingJson(const BlockFolding& folding) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [input, scales] : folding.all()) {
    if (!scales.empty()) json[KeyOf(input)] = Hex(scales);
  }
  return json;
}

BlockFolding ParseFolding(const nlohmann::json& json, const DecoderSpec& spec,
                          const BlockSpec& block, const std::string& where) {
  if (!json.is_object()) Fail(where, "a block is no object");
  const std::vector<SharedInput> inputs = block.SharedInputs();
  BlockFolding folding;
  for (const auto& [key, value] : json.items()) {
    const auto input =
        std::ranges::find_if(inputs, [&](const SharedInput& i) { return key == KeyOf(i); });
    if (input == inputs.end()) Fail(where, "unknown key '" + key + "'");
    if (!IsFoldable(spec, block, *input)) {
      Fail(where, "'" + key + "' cannot be folded into this model");
    }
    const auto digits = static_cast<size_t>(FoldedWidth(spec, block, *input)) * kDigits;
    if (!value.is_string() || value.get_ref<const std::string&>().size() != digits) {
      Fail(where, "'" + key + "' is no text of " + std::to_string(digits) + " digits");
    }
    folding.at(*input) = Unhex(value.get<std::string>(), key, where);
  }
  return folding;
}

}  // namespace quantmill
