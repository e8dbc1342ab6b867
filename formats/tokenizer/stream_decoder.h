// Decoding one id at a time, for terminals and servers.
#ifndef QUANTMILL_FORMATS_TOKENIZER_STREAM_DECODER_H_
#define QUANTMILL_FORMATS_TOKENIZER_STREAM_DECODER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "formats/tokenizer/tokenizer.h"

namespace quantmill {

// All results of Next and that of Flush, joined, equal Tokenizer::Decode of the same ids. Each
// result is well-formed UTF-8: an unfinished code point waits for its last byte. Not thread-safe.
class StreamDecoder {
 public:
  // Borrows `tokenizer`, which must outlive this object (it may be moved meanwhile).
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);

  // The text that `id` completes, often empty. Throws Error(kBadInput) for an id without a token.
  std::string Next(int32_t id);
  // Ends the text: what was held back. Ready for a new text afterwards.
  std::string Flush();

 private:
  const Tokenizer::Parts* parts_;
  bool skip_special_tokens_;
  std::unique_ptr<DecodeOutput> output_;  // stages_ keep its address
  std::unique_ptr<DecodeSink> stages_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_STREAM_DECODER_H_
