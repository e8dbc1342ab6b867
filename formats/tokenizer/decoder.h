// Decoders: tokens -> text. Each is a chain of stages through which tokens stream, so that a whole
// list and one token at a time give the same text.
#ifndef QUANTMILL_FORMATS_TOKENIZER_DECODER_H_
#define QUANTMILL_FORMATS_TOKENIZER_DECODER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer/regex.h"

namespace quantmill {

// Receives tokens as text. A token may come in several parts. Not thread-safe.
class DecodeSink {
 public:
  virtual ~DecodeSink() = default;
  // A part of the current token (well-formed UTF-8, maybe empty); `last` ends that token.
  virtual void Part(std::string_view text, bool last) = 0;
  // No more tokens; the last one has ended. Called once.
  virtual void End() = 0;
};

// The last sink: joins everything.
class DecodeOutput : public DecodeSink {
 public:
  void Part(std::string_view text, bool) override { text_ += text; }
  void End() override {}
  // What came since the last call.
  std::string Take();

 private:
  std::string text_;
};

// One way to decode. Immutable and thread-safe.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // New stages that end in `next`, which must outlive them; tokens go into the result. The stages
  // hold text back only while a later token can still change it.
  virtual std::unique_ptr<DecodeSink> Start(DecodeSink& next) const = 0;
};

// No decoder in the file: tokens with a space between them.
std::unique_ptr<Decoder> MakeJoinWithSpaces();
// GPT-2: code points of the byte alphabet become bytes; ill-formed UTF-8 becomes U+FFFD. A token
// with any other code point stands for its own bytes. All tokens become one.
std::unique_ptr<Decoder> MakeByteLevelDecoder();
// Runs of <0xHH> tokens become the text of these bytes, or one U+FFFD a token when that is not
// well-formed UTF-8. Text of a run is held back until the run ends.
std::unique_ptr<Decoder> MakeByteFallback();
// All tokens become one.
std::unique_ptr<Decoder> MakeFuse();
// Drops up to `start` leading and up to `stop` trailing `content` (one code point) of each token.
std::unique_ptr<Decoder> MakeStripDecoder(std::string content, size_t start, size_t stop);
// Replaces in each token, as the normalizers of the same name do.
std::unique_ptr<Decoder> MakeReplaceStringDecoder(std::string pattern, std::string content);
std::unique_ptr<Decoder> MakeReplaceRegexDecoder(Regex pattern, std::string content);
// `replacement` (one code point) becomes a space; with `drop_first` those of the first token
// vanish.
std::unique_ptr<Decoder> MakeMetaspaceDecoder(std::string replacement, bool drop_first);
// `suffix` becomes a space, in the last token nothing.
std::unique_ptr<Decoder> MakeBpeDecoder(std::string suffix);
// All of `parts`, in order.
std::unique_ptr<Decoder> MakeDecoderSequence(std::vector<std::unique_ptr<Decoder>> parts);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_DECODER_H_
