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

bool BlockFolding::identity() const {
  return std::all_of(scales_.begin(), scales_.end(), [](const auto& s) { return s.empty(); });
}

bool IsFoldable(const DecoderSpec& spec, const BlockSpec& block, Site site) {
  switch (site) {
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

int64_t FoldedWidth(const DecoderSpec& spec, Site site) {
  switch (site) {
    case Site::kAttentionIn:
    case Site::kMlpIn:
      return spec.hidden;
    case Site::kAttentionOut:
      return spec.kv_heads * spec.head_dim;
    case Site::kMlpOut:
      return spec.ffn;
  }
  return 0;
}

int64_t FoldedIndex(const DecoderSpec& spec, Site site, int64_t column) {
  if (site != Site::kAttentionOut) return column;
  const int64_t head = column / spec.head_dim;
  return head / (spec.heads / spec.kv_heads) * spec.head_dim + column % spec.head_dim;
}

nlohmann::json FoldingJson(const BlockFolding& folding) {
  nlohmann::json json = nlohmann::json::object();
  for (const Site site : kSites) {
    if (!folding.at(site).empty()) json[KeyOf(site)] = Hex(folding.at(site));
  }
  return json;
}

BlockFolding ParseFolding(const nlohmann::json& json, const DecoderSpec& spec,
                          const BlockSpec& block, const std::string& where) {
  if (!json.is_object()) Fail(where, "a block is no object");
  BlockFolding folding;
  for (const auto& [key, value] : json.items()) {
    const auto* const site =
        std::find_if(kSites.begin(), kSites.end(), [&](Site s) { return key == KeyOf(s); });
    if (site == kSites.end()) Fail(where, "unknown key '" + key + "'");
    if (!IsFoldable(spec, block, *site)) {
      Fail(where, "'" + key + "' cannot be folded into this model");
    }
    const auto digits = static_cast<size_t>(FoldedWidth(spec, *site)) * kDigits;
    if (!value.is_string() || value.get_ref<const std::string&>().size() != digits) {
      Fail(where, "'" + key + "' is no text of " + std::to_string(digits) + " digits");
    }
    folding.at(*site) = Unhex(value.get<std::string>(), key, where);
  }
  return folding;
}

}  // namespace quantmill
