#include "tools/text_tokens.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "quant/calib/token_stream.h"

namespace quantmill {
namespace {

std::optional<std::string> TokenizerText(const ModelSource& model) {
  return model.checkpoint().ReadFile("tokenizer.json");
}

// Where there is none that can be read, eval has another way.
Tokenizer OpenOrTellOfIds(const ModelSource& model) {
  try {
    return OpenTokenizer(model);
  } catch (const Error& error) {
    throw Error(error.code(), error.where(),
                error.message() + "; or give token ids, with --tokens-file");
  }
}

}  // namespace

std::optional<int32_t> BosOf(const Tokenizer& tokenizer) {
  // A text whose own ids are known tells what stands before them and not behind.
  const std::vector<int32_t> bare = tokenizer.Encode("a", false);
  const std::vector<int32_t> whole = tokenizer.Encode("a", true);
  if (bare.empty() || whole.size() <= bare.size() || whole[0] == bare[0]) return std::nullopt;
  return whole[0];
}

TextTokens TokenizeText(const std::string& path, const std::deque<ModelSource>& models) {
  const Tokenizer tokenizer = OpenOrTellOfIds(models.front());
  const std::optional<std::string> text = TokenizerText(models.front());
  TextTokens tokens{ReadEvaluationIds(path, models.front(), tokenizer), BosOf(tokenizer)};
  for (size_t i = 1; i < models.size(); ++i) {
    if (TokenizerText(models[i]) == text) continue;
    const Tokenizer other = OpenOrTellOfIds(models[i]);
    if (ReadEvaluationIds(path, models[i], other) == tokens.ids) continue;
    throw Error(ErrorCode::kBadInput, models[i].path(),
                "its tokenizer encodes the text differently from that of " + models.front().path() +
                    ": the results could not be compared");
  }
  return tokens;
}

TextTokens ReadTokensFile(const std::string& path, const std::deque<ModelSource>& models) {
  int64_t vocab = models.front().spec().vocab;
  for (const ModelSource& model : models) vocab = std::min(vocab, model.spec().vocab);
  TextTokens tokens{ReadTokenIds(path, vocab), std::nullopt};
  // Ids need no tokenizer; where there is one it tells what BOS is.
  if (models.front().checkpoint().HasFile("tokenizer.json")) {
    tokens.bos = BosOf(OpenTokenizer(models.front()));
  }
  return tokens;
}

}  // namespace quantmill
