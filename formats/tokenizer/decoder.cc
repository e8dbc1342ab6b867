#include "formats/tokenizer/decoder.h"

#include <functional>
#include <optional>
#include <utility>

#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// A stage that wants each token whole.
class WholeTokenStage : public DecodeSink {
 public:
  explicit WholeTokenStage(DecodeSink& next) : next_(next) {}
  void Part(std::string_view text, bool last) final {
    if (last && held_.empty()) return Token(text);
    held_ += text;
    if (!last) return;
    const std::string whole = std::exchange(held_, {});
    Token(whole);
  }
  void End() override { next_.End(); }

 protected:
  virtual void Token(std::string_view text) = 0;
  DecodeSink& next() { return next_; }

 private:
  DecodeSink& next_;
  std::string held_;
};

class JoinWithSpacesStage : public DecodeSink {
 public:
  explicit JoinWithSpacesStage(DecodeSink& next) : next_(next) {}
  void Part(std::string_view text, bool last) override {
    if (between_) next_.Part(" ", false);
    between_ = last;
    next_.Part(text, last);
  }
  void End() override { next_.End(); }

 private:
  DecodeSink& next_;
  bool between_ = false;
};

class ByteLevelStage : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;
  void End() override {
    std::string text;
    repairer_.Finish(text);
    next().Part(text, true);
    next().End();
  }

 protected:
  void Token(std::string_view token) override {
    const std::optional<std::string> bytes = ByteAlphabet::Get().Decode(token);
    std::string text;
    repairer_.Feed(bytes ? std::string_view(*bytes) : token, text);
    next().Part(text, false);
  }

 private:
  Utf8Repairer repairer_;
};

class ByteFallbackStage : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;
  void End() override {
    Flush();
    next().End();
  }

 protected:
  void Token(std::string_view token) override {
    if (const std::optional<char> byte = ByteOf(token)) {
      bytes_.push_back(*byte);
      return;
    }
    Flush();
    next().Part(token, true);
  }

 private:
  // <0xHH>; as in the reference library the digits may be lower-case or "+H".
  static std::optional<char> ByteOf(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
    const auto digit = [](char c) {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'A' && c <= 'F') return c - 'A' + 10;
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      return -1;
    };
    const int high = token[3] == '+' ? 0 : digit(token[3]);
    const int low = digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(high * 16 + low);
  }

  void Flush() {
    if (bytes_.empty()) return;
    const std::string bytes = std::exchange(bytes_, {});
    if (!FindInvalidUtf8(bytes)) return next().Part(bytes, true);
    for (size_t i = 0; i < bytes.size(); ++i) next().Part(kReplacement, true);
  }

  std::string bytes_;
};

class FuseStage : public DecodeSink {
 public:
  explicit FuseStage(DecodeSink& next) : next_(next) {}
  void Part(std::string_view text, bool) override { next_.Part(text, false); }
  void End() override {
    next_.Part({}, true);
    next_.End();
  }

 private:
  DecodeSink& next_;
};

class StripStage : public DecodeSink {
 public:
  StripStage(DecodeSink& next, std::string content, size_t start, size_t stop)
      : next_(next), content_(std::move(content)), start_(start), stop_(stop) {}

  void Part(std::string_view text, bool last) override {
    while (at_start_ && text.substr(0, content_.size()) == content_ && stripped_ < start_) {
      ++stripped_;
      text.remove_prefix(content_.size());
    }
    if (!text.empty()) at_start_ = false;
    if (stop_ == 0) {
      next_.Part(text, last);
    } else {
      Hold(text, last);
    }
    if (!last) return;
    at_start_ = true;
    stripped_ = 0;
  }
  void End() override { next_.End(); }

 private:
  // Trailing `content` is held back until it is known not to end the token.
  void Hold(std::string_view text, bool last) {
    std::string_view body = text;
    size_t trailing = 0;
    while (body.size() >= content_.size() &&
           body.substr(body.size() - content_.size()) == content_) {
      body.remove_suffix(content_.size());
      ++trailing;
    }
    std::string out;
    const auto put = [&](size_t count) {
      for (size_t i = 0; i < count; ++i) out += content_;
    };
    if (!body.empty()) put(std::exchange(held_, 0));
    out += body;
    held_ += trailing;
    if (last) {
      put(held_ > stop_ ? held_ - stop_ : 0);
      held_ = 0;
    }
    next_.Part(out, last);
  }

  DecodeSink& next_;
  std::string content_;
  size_t start_;
  size_t stop_;
  bool at_start_ = true;
  size_t stripped_ = 0;
  size_t held_ = 0;
};

// A token at a time through a function; `index` counts the tokens.
class MapStage : public WholeTokenStage {
 public:
  using Function = std::function<std::string(std::string_view token, size_t index)>;
  MapStage(DecodeSink& next, Function function)
      : WholeTokenStage(next), function_(std::move(function)) {}

 protected:
  void Token(std::string_view token) override { next().Part(function_(token, index_++), true); }

 private:
  Function function_;
  size_t index_ = 0;
};

class BpeDecoderStage : public WholeTokenStage {
 public:
  BpeDecoderStage(DecodeSink& next, std::string suffix)
      : WholeTokenStage(next), suffix_(std::move(suffix)) {}
  void End() override {
    if (held_) next().Part(ReplaceAll(*held_, suffix_, ""), true);
    next().End();
  }

 protected:
  void Token(std::string_view token) override {
    if (held_) next().Part(ReplaceAll(*held_, suffix_, " "), true);
    held_ = std::string(token);
  }

 private:
  std::string suffix_;
  std::optional<std::string> held_;
};

// A Decoder whose stage is made by a function.
class StageDecoder : public Decoder {
 public:
  using Factory = std::function<std::unique_ptr<DecodeSink>(DecodeSink& next)>;
  explicit StageDecoder(Factory factory) : factory_(std::move(factory)) {}
  std::unique_ptr<DecodeSink> Start(DecodeSink& next) const override { return factory_(next); }

 private:
  Factory factory_;
};

std::unique_ptr<Decoder> FromFactory(StageDecoder::Factory factory) {
  return std::make_unique<StageDecoder>(std::move(factory));
}

// Stages in order; the first one receives.
class StageChain : public DecodeSink {
 public:
  StageChain(const std::vector<std::unique_ptr<Decoder>>& parts, DecodeSink& next) : first_(&next) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      stages_.push_back((*part)->Start(*first_));
      first_ = stages_.back().get();
    }
  }
  void Part(std::string_view text, bool last) override { first_->Part(text, last); }
  void End() override { first_->End(); }

 private:
  std::vector<std::unique_ptr<DecodeSink>> stages_;  // last to first
  DecodeSink* first_;
};

class DecoderSequence : public Decoder {
 public:
  explicit DecoderSequence(std::vector<std::unique_ptr<Decoder>> parts)
      : parts_(std::move(parts)) {}
  std::unique_ptr<DecodeSink> Start(DecodeSink& next) const override {
    return std::make_unique<StageChain>(parts_, next);
  }

 private:
  std::vector<std::unique_ptr<Decoder>> parts_;
};

}  // namespace

std::string DecodeOutput::Take() { return std::exchange(text_, {}); }

std::unique_ptr<Decoder> MakeJoinWithSpaces() {
  return FromFactory([](DecodeSink& next) { return std::make_unique<JoinWithSpacesStage>(next); });
}

std::unique_ptr<Decoder> MakeByteLevelDecoder() {
  return FromFactory([](DecodeSink& next) { return std::make_unique<ByteLevelStage>(next); });
}

std::unique_ptr<Decoder> MakeByteFallback() {
  return FromFactory([](DecodeSink& next) { return std::make_unique<ByteFallbackStage>(next); });
}

std::unique_ptr<Decoder> MakeFuse() {
  return FromFactory([](DecodeSink& next) { return std::make_unique<FuseStage>(next); });
}

std::unique_ptr<Decoder> MakeStripDecoder(std::string content, size_t start, size_t stop) {
  Check(CountCodePoints(content) == 1, "Strip drops one code point");
  return FromFactory([content = std::move(content), start, stop](DecodeSink& next) {
    return std::make_unique<StripStage>(next, content, start, stop);
  });
}

std::unique_ptr<Decoder> MakeReplaceStringDecoder(std::string pattern, std::string content) {
  Check(!pattern.empty(), "Replace needs a pattern");
  const auto replace = [pattern = std::move(pattern), content = std::move(content)](
                           std::string_view token, size_t) {
    return ReplaceAll(token, pattern, content);
  };
  return FromFactory(
      [replace](DecodeSink& next) { return std::make_unique<MapStage>(next, replace); });
}

std::unique_ptr<Decoder> MakeReplaceRegexDecoder(Regex pattern, std::string content) {
  // std::function needs a copyable closure, and a Regex only moves; all users only read it.
  const auto shared = std::make_shared<const Regex>(std::move(pattern));
  const auto replace = [shared, content = std::move(content)](std::string_view token, size_t) {
    return ReplaceAll(token, *shared, content);
  };
  return FromFactory(
      [replace](DecodeSink& next) { return std::make_unique<MapStage>(next, replace); });
}

std::unique_ptr<Decoder> MakeMetaspaceDecoder(std::string replacement, bool drop_first) {
  const auto replace = [replacement = std::move(replacement), drop_first](std::string_view token,
                                                                          size_t index) {
    return ReplaceAll(token, replacement, drop_first && index == 0 ? "" : " ");
  };
  return FromFactory(
      [replace](DecodeSink& next) { return std::make_unique<MapStage>(next, replace); });
}

std::unique_ptr<Decoder> MakeBpeDecoder(std::string suffix) {
  Check(!suffix.empty(), "BPEDecoder needs a suffix");
  return FromFactory([suffix = std::move(suffix)](DecodeSink& next) {
    return std::make_unique<BpeDecoderStage>(next, suffix);
  });
}

std::unique_ptr<Decoder> MakeDecoderSequence(std::vector<std::unique_ptr<Decoder>> parts) {
  return std::make_unique<DecoderSequence>(std::move(parts));
}

}  // namespace quantmill
