#include "formats/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/unicode_versions.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// A part of one piece, relative to its start, and whether the pattern matched it.
struct Part {
  size_t begin;
  size_t end;
  bool match;
};

// Joins a match to the part before it, unless that is a match itself.
void MergeWithPrevious(std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool previous_match = false;
  for (const Part& part : parts) {
    if (part.match && !previous_match && !merged.empty()) {
      merged.back().end = part.end;
    } else {
      merged.push_back(part);
    }
    previous_match = part.match;
  }
  parts = std::move(merged);
}

// Joins a match to the part after it, unless that is a match itself.
void MergeWithNext(std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool next_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->match && !next_match && !merged.empty()) {
      merged.back().begin = part->begin;
    } else {
      merged.push_back(*part);
    }
    next_match = part->match;
  }
  std::reverse(merged.begin(), merged.end());
  parts = std::move(merged);
}

void MergeContiguous(std::vector<Part>& parts) {
  std::vector<Part> merged;
  for (const Part& part : parts) {
    if (!merged.empty() && merged.back().match == part.match) {
      merged.back().end = part.end;
    } else {
      merged.push_back(part);
    }
  }
  parts = std::move(merged);
}

// Appends the parts that `behavior` makes of a piece to `out`, without the empty ones.
void EmitParts(std::vector<Part>& parts, SplitBehavior behavior, const Piece& piece,
               std::vector<Piece>& out) {
  if (behavior == SplitBehavior::kMergedWithPrevious) MergeWithPrevious(parts);
  if (behavior == SplitBehavior::kMergedWithNext) MergeWithNext(parts);
  if (behavior == SplitBehavior::kContiguous) MergeContiguous(parts);
  for (const Part& part : parts) {
    if (part.begin == part.end) continue;
    if (behavior == SplitBehavior::kRemoved && part.match) continue;
    out.push_back({piece.begin + part.begin, piece.begin + part.end, Piece::kText,
                   piece.starts_input && part.begin == 0});
  }
}

// Splits every text piece. for_each_match(text, on_match) reports the matches of one piece.
template <typename ForEachMatch>
void SplitPieces(PieceList& list, SplitBehavior behavior, bool invert,
                 ForEachMatch&& for_each_match) {
  std::vector<Piece> out;
  out.reserve(list.pieces.size() * 2);
  std::vector<Part> parts;
  for (const Piece& piece : list.pieces) {
    if (piece.token != Piece::kText) {
      out.push_back(piece);
      continue;
    }
    const std::string_view text = list.Text(piece);
    parts.clear();
    size_t done = 0;
    for_each_match(text, [&](size_t begin, size_t end) {
      if (begin > done) parts.push_back({done, begin, invert});
      parts.push_back({begin, end, !invert});
      done = end;
    });
    if (done < text.size()) parts.push_back({done, text.size(), invert});
    EmitParts(parts, behavior, piece, out);
  }
  list.pieces = std::move(out);
}

// Splits where `matches(code point)` holds; every such code point is a match of its own.
template <typename Matches>
void SplitByCodePoint(PieceList& list, SplitBehavior behavior, Matches&& matches) {
  SplitPieces(list, behavior, false, [&](std::string_view text, auto&& on_match) {
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      if (matches(NextCodePoint(text, pos))) on_match(begin, pos);
    }
  });
}

// Rewrites every text piece: rewrite(piece text, starts_input, out) appends the new text.
template <typename Rewrite>
void RewritePieces(PieceList& list, Rewrite&& rewrite) {
  std::string text;
  text.reserve(list.text.size() + list.text.size() / 4);
  for (Piece& piece : list.pieces) {
    if (piece.token != Piece::kText) continue;
    const std::string_view old = list.Text(piece);
    piece.begin = text.size();
    rewrite(old, piece.starts_input, text);
    piece.end = text.size();
  }
  list.text = std::move(text);
}

class SplitRegex : public PreTokenizer {
 public:
  SplitRegex(Regex pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void Apply(PieceList& list) const override {
    Regex::Matcher matcher(pattern_);
    SplitPieces(list, behavior_, invert_, [&](std::string_view text, auto&& on_match) {
      Regex::ForEachMatch(matcher, text, on_match);
    });
  }

 private:
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class SplitString : public PreTokenizer {
 public:
  SplitString(std::string pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {
    Check(!pattern_.empty(), "Split needs a pattern");
  }
  void Apply(PieceList& list) const override {
    SplitPieces(list, behavior_, invert_, [&](std::string_view text, auto&& on_match) {
      for (size_t at = text.find(pattern_); at != std::string_view::npos;
           at = text.find(pattern_, at + pattern_.size())) {
        on_match(at, at + pattern_.size());
      }
    });
  }

 private:
  std::string pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class Digits : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}
  void Apply(PieceList& list) const override {
    SplitByCodePoint(list, individual_ ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                     IsNumeric);
  }

 private:
  bool individual_;
};

class Punctuation : public PreTokenizer {
 public:
  explicit Punctuation(SplitBehavior behavior) : behavior_(behavior) {}
  void Apply(PieceList& list) const override { SplitByCodePoint(list, behavior_, IsPunctuation); }

 private:
  SplitBehavior behavior_;
};

class WhitespaceSplit : public PreTokenizer {
 public:
  void Apply(PieceList& list) const override {
    SplitByCodePoint(list, SplitBehavior::kRemoved, IsWhiteSpace);
  }
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex) {}
  void Apply(PieceList& list) const override {
    if (add_prefix_space_) {
      RewritePieces(list, [](std::string_view text, bool, std::string& out) {
        if (text[0] != ' ') out += ' ';
        out += text;
      });
    }
    if (use_regex_) {
      static const Regex kRegex = Regex::FromPattern(kGpt2Pattern, "the pattern of GPT-2");
      Regex::Matcher matcher(kRegex);
      SplitPieces(list, SplitBehavior::kIsolated, false,
                  [&](std::string_view text, auto&& on_match) {
                    Regex::ForEachMatch(matcher, text, on_match);
                  });
    }
    const ByteAlphabet& alphabet = ByteAlphabet::Get();
    RewritePieces(
        list, [&](std::string_view text, bool, std::string& out) { alphabet.Encode(text, out); });
  }
  bool KeepsStart() const override { return false; }

 private:
  bool add_prefix_space_;
  bool use_regex_;
};

class Metaspace : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  void Apply(PieceList& list) const override {
    RewritePieces(list, [&](std::string_view text, bool starts_input, std::string& out) {
      const bool wanted =
          scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && starts_input);
      const bool there = text[0] == ' ' || text.substr(0, replacement_.size()) == replacement_;
      if (wanted && !there) out += replacement_;
      out += ReplaceAll(text, " ", replacement_);
    });
    if (!split_) return;
    SplitPieces(list, SplitBehavior::kMergedWithNext, false,
                [&](std::string_view text, auto&& on_match) {
                  for (size_t at = text.find(replacement_); at != std::string_view::npos;
                       at = text.find(replacement_, at + replacement_.size())) {
                    on_match(at, at + replacement_.size());
                  }
                });
  }
  bool NeedsStart() const override { return scheme_ == PrependScheme::kFirst; }
  bool KeepsStart() const override { return false; }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> parts)
      : parts_(std::move(parts)) {}
  void Apply(PieceList& list) const override {
    for (const auto& part : parts_) part->Apply(list);
  }
  bool NeedsStart() const override {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->NeedsStart(); });
  }
  bool KeepsStart() const override {
    return std::all_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->KeepsStart(); });
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

}  // namespace

std::unique_ptr<PreTokenizer> MakeSplitRegex(Regex pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<SplitRegex>(std::move(pattern), behavior, invert);
}
std::unique_ptr<PreTokenizer> MakeSplitString(std::string pattern, SplitBehavior behavior,
                                              bool invert) {
  return std::make_unique<SplitString>(std::move(pattern), behavior, invert);
}
std::unique_ptr<PreTokenizer> MakeDigits(bool individual_digits) {
  return std::make_unique<Digits>(individual_digits);
}
std::unique_ptr<PreTokenizer> MakePunctuation(SplitBehavior behavior) {
  return std::make_unique<Punctuation>(behavior);
}
std::unique_ptr<PreTokenizer> MakeWhitespace() {
  // `\w` here is that of Rust's regex crate: with join controls, of a newer Unicode.
  std::string word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
  for (const CodePointRange& range : kWordSinceUnicode15) {
    AppendUtf8(range.first, word);
    word += '-';
    AppendUtf8(range.last, word);
  }
  return MakeSplitRegex(
      Regex::FromPcre("[" + word + "]+|[^" + word + "\\p{White_Space}]+", "Whitespace"),
      SplitBehavior::kRemoved, true);
}
std::unique_ptr<PreTokenizer> MakeWhitespaceSplit() { return std::make_unique<WhitespaceSplit>(); }
std::unique_ptr<PreTokenizer> MakeByteLevel(bool add_prefix_space, bool use_regex) {
  return std::make_unique<ByteLevel>(add_prefix_space, use_regex);
}
std::unique_ptr<PreTokenizer> MakeMetaspace(std::string replacement, PrependScheme scheme,
                                            bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}
std::unique_ptr<PreTokenizer> MakePreTokenizerSequence(
    std::vector<std::unique_ptr<PreTokenizer>> parts) {
  bool exact = true;
  for (const auto& part : parts) {
    Check(exact || !part->NeedsStart(), "a part needs the start that an earlier one lost");
    exact = exact && part->KeepsStart();
  }
  return std::make_unique<PreTokenizerSequence>(std::move(parts));
}

}  // namespace quantmill
