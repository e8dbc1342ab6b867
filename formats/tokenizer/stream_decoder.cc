#include "formats/tokenizer/stream_decoder.h"

#include "formats/tokenizer/tokenizer_parts.h"

namespace quantmill {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : parts_(tokenizer.parts_.get()),
      skip_special_tokens_(skip_special_tokens),
      output_(std::make_unique<DecodeOutput>()),
      stages_(parts_->decoder->Start(*output_)) {}

std::string StreamDecoder::Next(int32_t id) {
  Tokenizer::PushToken(*parts_, id, skip_special_tokens_, *stages_);
  return output_->Take();
}

std::string StreamDecoder::Flush() {
  stages_->End();
  std::string rest = output_->Take();
  stages_ = parts_->decoder->Start(*output_);
  return rest;
}

}  // namespace quantmill
