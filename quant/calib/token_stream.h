// Token ids from the texts people have: plain text, JSON, JSON lines, ids.
#ifndef QUANTMILL_QUANT_CALIB_TOKEN_STREAM_H_
#define QUANTMILL_QUANT_CALIB_TOKEN_STREAM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer/tokenizer.h"
#include "quant/calib/calibration_stream.h"

namespace quantmill {

// The tokenizer of a model folder; Error(kBadInput) when it has none we read.
Tokenizer OpenTokenizer(const ModelSource& source);

// Both read a file by its ending, as one stream of ids:
//   .json    an array of strings, joined by two newlines; or an array of token ids
//   .jsonl   one object a line: "text" (joined by two newlines), or "messages", rendered by the
//            checkpoint's chat template (tokenizer_config.json or chat_template.jinja; Error if
//            there is none, or one we cannot render exactly)
//   others   plain UTF-8 text
// An empty path stands for the bundled calibration text.
//
// Without special tokens. The model's tokenizer is opened only if there is something to encode.
std::vector<int32_t> ReadCalibrationIds(const std::string& path, const ModelSource& source);
// With BOS and the like at the start of the stream.
std::vector<int32_t> ReadEvaluationIds(const std::string& path, const ModelSource& source,
                                       const Tokenizer& tokenizer);

// A JSON array of token ids, each in [0, vocab).
std::vector<int32_t> ReadTokenIds(const std::string& path, int64_t vocab);

// The calibration text inside the binary (calib_data/calibration.txt).
std::string_view BundledCalibrationText();

// Cuts `count` windows of `length` ids: the first ones, or, with a seed, windows at distinct random
// multiples of `length`. Error(kBadInput) when the text is shorter than that, saying how many
// windows it would give.
TokenWindows CutCalibrationWindows(const std::vector<int32_t>& ids, int64_t count, int64_t length,
                                   std::optional<uint64_t> seed);

// Removes the last `count` whole windows of `length` ids, and what is behind them, from `ids`, and
// returns them: what is measured on them was not calibrated on. REQUIRES: there are that many.
TokenWindows TakeLastWindows(std::vector<int32_t>& ids, int64_t count, int64_t length);

// SHA-256 of ids as little-endian int32.
std::string HashTokens(const std::vector<int32_t>& ids);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_CALIB_TOKEN_STREAM_H_
