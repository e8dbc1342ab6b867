#include "formats/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "formats/tokenizer/tokenizer_parts.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {

Tokenizer::Parts::Parts(TokenizerComponents components)
    : where(std::move(components.where)),
      normalizer(std::move(components.normalizer)),
      pre_tokenizer(std::move(components.pre_tokenizer)),
      model(std::move(components.model), where),
      added(std::move(components.added_tokens), model, normalizer.get(), where),
      post_processor(std::move(components.post_processor)),
      decoder(components.decoder ? std::move(components.decoder) : MakeJoinWithSpaces()) {
  if (pre_tokenizer && pre_tokenizer->NeedsStart() && normalizer && !normalizer->KeepsStart()) {
    throw Error(ErrorCode::kBadInput, where,
                "Metaspace with prepend_scheme \"first\" after a normalizer that can change where "
                "the text starts is not supported");
  }
  for (const int32_t id : post_processor.items()) {
    if (id == PostProcessor::kText) continue;
    if (added.Find(id) == nullptr && model.IdToToken(id) == nullptr) {
      throw Error(ErrorCode::kBadInput, where,
                  "post_processor adds id " + std::to_string(id) + ", which has no token");
    }
  }
}

Tokenizer::Tokenizer(TokenizerComponents components)
    : parts_(new Parts(std::move(components)), [](const Parts* parts) { delete parts; }) {}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  const Parts& parts = *parts_;
  if (const std::optional<size_t> bad = FindInvalidUtf8(text)) {
    throw Error(ErrorCode::kBadInput, "text to tokenize",
                "invalid UTF-8 at byte " + std::to_string(*bad));
  }
  PieceList list = parts.added.Extract(text, parts.normalizer.get());
  if (parts.pre_tokenizer) parts.pre_tokenizer->Apply(list);
  std::vector<int32_t> ids;
  ids.reserve(list.pieces.size() * 2);
  Bpe::Cache cache;
  for (const Piece& piece : list.pieces) {
    if (piece.token != Piece::kText) {
      ids.push_back(piece.token);
    } else {
      parts.model.Encode(list.Text(piece), cache, ids);
    }
  }
  return parts.post_processor.Apply(std::move(ids), add_special_tokens);
}

void Tokenizer::PushToken(const Parts& parts, int32_t id, bool skip_special_tokens,
                          DecodeSink& stages) {
  if (const AddedToken* added = parts.added.Find(id)) {
    if (skip_special_tokens && added->special) return;
    stages.Part(parts.added.DecodeText(*added), true);
    return;
  }
  const std::string* token = parts.model.IdToToken(id);
  if (token == nullptr) {
    throw Error(ErrorCode::kBadInput, parts.where, "no token has id " + std::to_string(id));
  }
  stages.Part(*token, true);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  DecodeOutput output;
  const std::unique_ptr<DecodeSink> stages = parts_->decoder->Start(output);
  for (const int32_t id : ids) PushToken(*parts_, id, skip_special_tokens, *stages);
  stages->End();
  return output.Take();
}

int64_t Tokenizer::vocab_size() const {
  return std::max(parts_->model.id_limit(), parts_->added.id_limit());
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const int32_t added = parts_->added.IdOf(token);
  if (added >= 0) return added;
  return parts_->model.TokenToId(token);
}

const std::string& Tokenizer::IdToToken(int32_t id) const {
  if (const AddedToken* added = parts_->added.Find(id)) return added->content;
  const std::string* token = parts_->model.IdToToken(id);
  if (token == nullptr) {
    throw Error(ErrorCode::kBadInput, parts_->where, "no token has id " + std::to_string(id));
  }
  return *token;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const AddedToken* added = parts_->added.Find(id);
  return added != nullptr && added->special;
}

}  // namespace quantmill
