// Hand-worked cases of every component.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "formats/tokenizer/added_tokens.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/decoder.h"
#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/post_processor.h"
#include "formats/tokenizer/pre_tokenizer.h"
#include "formats/tokenizer/regex.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using Strings = std::vector<std::string>;
using Ids = std::vector<int32_t>;

std::string Normalize(const std::unique_ptr<Normalizer>& normalizer, std::string text) {
  normalizer->Apply(text);
  return text;
}

Strings Split(const std::unique_ptr<PreTokenizer>& pre_tokenizer, const std::string& text) {
  PieceList list;
  list.text = text;
  if (!text.empty()) list.pieces.push_back({0, text.size(), Piece::kText, true});
  pre_tokenizer->Apply(list);
  Strings parts;
  for (const Piece& piece : list.pieces) parts.emplace_back(list.Text(piece));
  return parts;
}

std::string Decode(const std::unique_ptr<Decoder>& decoder, const Strings& tokens) {
  DecodeOutput output;
  const auto stages = decoder->Start(output);
  for (const std::string& token : tokens) stages->Part(token, true);
  stages->End();
  return output.Take();
}

Regex Pattern(const char* pattern) { return Regex::FromPattern(pattern, "test"); }

TEST(Normalizers, Rewrite) {
  EXPECT_EQ(Normalize(MakeUnicodeNormalizer(UnicodeForm::kNfc), "e\u0301 \u212B x"),
            "\u00E9 \u00C5 x");
  EXPECT_EQ(Normalize(MakeUnicodeNormalizer(UnicodeForm::kNfd), "\u00E9"), "e\u0301");
  EXPECT_EQ(Normalize(MakeUnicodeNormalizer(UnicodeForm::kNfkc), "\uFB01\u00B2"), "fi2");
  EXPECT_EQ(Normalize(MakeLowercase(), "\u00C9A\u0130\u03A3"), "\u00E9ai\u0307\u03C3");
  EXPECT_EQ(Normalize(MakePrepend("_"), "a"), "_a");
  EXPECT_EQ(Normalize(MakePrepend("_"), ""), "");
  EXPECT_EQ(Normalize(MakeReplaceString(" ", "\u2581"), " a  b"), "\u2581a\u2581\u2581b");
  EXPECT_EQ(Normalize(MakeReplaceString("aa", "b"), "aaaaa"), "bba");
  EXPECT_EQ(Normalize(MakeReplaceRegex(Pattern(" {2,}"), "_"), "a  b c   "), "a_b c_");
  EXPECT_EQ(Normalize(MakeReplaceRegex(Pattern("x*"), "-"), "axb"), "-a-b-");
  EXPECT_EQ(Normalize(MakeStripNormalizer(true, false), "\u3000 a "), "a ");
  EXPECT_EQ(Normalize(MakeStripNormalizer(true, true), " \u00A0 "), "");
  EXPECT_EQ(Normalize(MakeByteLevelNormalizer(), " \u00E9\n"), "\u0120\u00C3\u00A9\u010A");
  std::vector<std::unique_ptr<Normalizer>> parts;
  parts.push_back(MakePrepend("\u2581"));
  parts.push_back(MakeReplaceString(" ", "\u2581"));
  EXPECT_EQ(Normalize(MakeNormalizerSequence(std::move(parts)), "a b"), "\u2581a\u2581b");
}

TEST(PreTokenizers, SplitBehaviors) {
  const std::string text = "the-final--countdown";
  const auto split = [&](SplitBehavior behavior) {
    return Split(MakeSplitString("-", behavior, false), text);
  };
  EXPECT_EQ(split(SplitBehavior::kRemoved), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious),
            (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous), (Strings{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(Split(MakeSplitRegex(Pattern("\\w+"), SplitBehavior::kRemoved, true), " a, bc "),
            (Strings{"a", "bc"}));
}

TEST(PreTokenizers, LookAheadEndsWithThePiece) {
  // The second pattern sees "a " alone: its last space is trailing there, whatever follows.
  std::vector<std::unique_ptr<PreTokenizer>> parts;
  parts.push_back(MakeSplitString("b", SplitBehavior::kIsolated, false));
  parts.push_back(MakeByteLevel(false, true));
  EXPECT_EQ(Split(MakePreTokenizerSequence(std::move(parts)), "a  b"),
            (Strings{"a", "\u0120\u0120", "b"}));
}

TEST(PreTokenizers, Others) {
  EXPECT_EQ(Split(MakeDigits(true), "a12\u00BD"), (Strings{"a", "1", "2", "\u00BD"}));
  EXPECT_EQ(Split(MakeDigits(false), "a12\u00BDb"), (Strings{"a", "12\u00BD", "b"}));
  EXPECT_EQ(Split(MakePunctuation(SplitBehavior::kIsolated), "a+\u3002b"),
            (Strings{"a", "+", "\u3002", "b"}));
  EXPECT_EQ(Split(MakeWhitespace(), "Hey man!? x_1"), (Strings{"Hey", "man", "!?", "x_1"}));
  EXPECT_EQ(Split(MakeWhitespaceSplit(), " a,\u00A0b "), (Strings{"a,", "b"}));
  EXPECT_EQ(Split(MakeByteLevel(false, true), "I'm 42!  x\n"),
            (Strings{"I", "'m", "\u012042", "!", "\u0120", "\u0120x", "\u010A"}));
  EXPECT_EQ(Split(MakeByteLevel(true, false), "a b"), (Strings{"\u0120a\u0120b"}));
  EXPECT_EQ(Split(MakeByteLevel(true, false), " a"), (Strings{"\u0120a"}));
  EXPECT_EQ(Split(MakeByteLevel(true, true), ""), Strings{});
}

TEST(PreTokenizers, Metaspace) {
  const auto split = [](PrependScheme scheme, bool cut, const std::string& text) {
    return Split(MakeMetaspace("_", scheme, cut), text);
  };
  EXPECT_EQ(split(PrependScheme::kAlways, true, "a b"), (Strings{"_a", "_b"}));
  EXPECT_EQ(split(PrependScheme::kAlways, false, "a b"), (Strings{"_a_b"}));
  EXPECT_EQ(split(PrependScheme::kAlways, true, " a"), (Strings{"_a"}));
  EXPECT_EQ(split(PrependScheme::kNever, true, "a  b"), (Strings{"a", "_", "_b"}));
  PieceList list;
  list.text = "ab";
  list.pieces = {{0, 1, Piece::kText, true}, {1, 2, Piece::kText, false}};
  MakeMetaspace("_", PrependScheme::kFirst, true)->Apply(list);
  EXPECT_EQ(list.text, "_ab");
}

// Tokens a..d = 0..3, then the given ones.
Bpe MakeBpe(BpeConfig config, const std::vector<std::pair<std::string, std::string>>& merges,
            const Strings& more) {
  config.vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}};
  for (const std::string& token : more) {
    config.vocab.emplace_back(token, static_cast<int64_t>(config.vocab.size()));
  }
  config.merges = merges;
  return Bpe(std::move(config), "test");
}

Ids Encode(const Bpe& bpe, const std::string& word) {
  Bpe::Cache cache;
  Ids ids;
  bpe.Encode(word, cache, ids);
  Ids again;
  bpe.Encode(word, cache, again);
  EXPECT_EQ(ids, again) << "the cache changes the tokens";
  return ids;
}

TEST(BpeModel, MergesLowestRankFirstAndLeftmostOnTies) {
  const Bpe bpe = MakeBpe({}, {{"b", "c"}, {"a", "b"}, {"a", "a"}}, {"bc", "ab", "aa"});
  EXPECT_EQ(Encode(bpe, "abc"), (Ids{0, 4}));  // bc before ab
  EXPECT_EQ(Encode(bpe, "abd"), (Ids{5, 3}));
  EXPECT_EQ(Encode(bpe, "aaa"), (Ids{6, 0}));
  EXPECT_EQ(Encode(bpe, ""), Ids{});
}

TEST(BpeModel, LongWordsMergeLikeShortOnes) {
  const Bpe bpe = MakeBpe({}, {{"a", "b"}, {"ab", "c"}, {"b", "c"}, {"abc", "abc"}},
                          {"ab", "abc", "bc", "abcabc"});
  std::string word;
  Ids want;
  for (int i = 0; i < 30; ++i) {
    word += "abcabcd";
    want.insert(want.end(), {7, 3});
    EXPECT_EQ(Encode(bpe, word), want);
  }
}

TEST(BpeModel, IgnoreMergesTakesWholeTokens) {
  BpeConfig config;
  EXPECT_EQ(Encode(MakeBpe(config, {}, {"cd"}), "cd"), (Ids{2, 3}));
  config.ignore_merges = true;
  EXPECT_EQ(Encode(MakeBpe(config, {}, {"cd"}), "cd"), (Ids{4}));
}

TEST(BpeModel, UnknownCodePoints) {
  BpeConfig config;
  EXPECT_EQ(Encode(MakeBpe(config, {}, {}), "axyb"), (Ids{0, 1}));  // dropped
  config.unk_token = "?";
  EXPECT_EQ(Encode(MakeBpe(config, {}, {"?"}), "axyb"), (Ids{0, 4, 4, 1}));
  config.fuse_unk = true;
  EXPECT_EQ(Encode(MakeBpe(config, {}, {"?"}), "axyb"), (Ids{0, 4, 1}));
  config.byte_fallback = true;
  EXPECT_EQ(Encode(MakeBpe(config, {}, {"?", "<0x78>"}), "axyb"), (Ids{0, 5, 4, 1}));
  EXPECT_THROW(Encode(MakeBpe(config, {}, {}), "x"), Error);  // "?" is not in the vocabulary
}

TEST(BpeModel, Affixes) {
  BpeConfig config;
  config.continuing_subword_prefix = "##";
  config.end_of_word_suffix = "</w>";
  const Bpe bpe = MakeBpe(config, {{"a", "##b"}}, {"##b", "ab", "##c</w>", "a</w>"});
  EXPECT_EQ(Encode(bpe, "abc"), (Ids{5, 6}));
  EXPECT_EQ(Encode(bpe, "a"), (Ids{7}));
}

TEST(BpeModel, MergesDoNotReachAcrossDroppedCodePoints) {
  // "x" is dropped, so the two space signs meet and merge.
  const std::string space = "\u2581";
  EXPECT_EQ(Encode(MakeBpe({}, {{space, space}}, {space, space + space}), space + "x" + space),
            (Ids{5}));
  BpeConfig config;
  config.unk_token = "?";
  EXPECT_EQ(Encode(MakeBpe(config, {{space, "a"}}, {space, space + "a", "?"}), "ax" + space + "a"),
            (Ids{0, 6, 5}));
}

TEST(BpeModel, RefusesInconsistentVocabularies) {
  const auto make = [](std::vector<std::pair<std::string, int64_t>> vocab,
                       std::vector<std::pair<std::string, std::string>> merges) {
    BpeConfig config;
    config.vocab = std::move(vocab);
    config.merges = std::move(merges);
    Bpe(std::move(config), "test");
  };
  EXPECT_THROW(make({{"a", 0}, {"b", 0}}, {}), Error);
  EXPECT_THROW(make({{"a", 0}, {"a", 1}}, {}), Error);
  EXPECT_THROW(make({{"a", -1}}, {}), Error);
  EXPECT_THROW(make({{"a", Bpe::kMaxId + 1}}, {}), Error);
  EXPECT_THROW(make({{"a", 0}}, {{"a", "b"}}), Error);
  EXPECT_THROW(make({{"a", 0}, {"b", 1}}, {{"a", "b"}}), Error);  // no "ab"
  EXPECT_NO_THROW(make({}, {}));
}

// Pieces as text, tokens as "#id".
Strings Extract(std::vector<AddedToken> tokens, const std::string& text,
                const std::unique_ptr<Normalizer>& normalizer = nullptr) {
  const Bpe model(BpeConfig{}, "test");
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i].id = static_cast<int64_t>(i);
  const AddedTokens added(std::move(tokens), model, normalizer.get(), "test");
  const PieceList list = added.Extract(text, normalizer.get());
  Strings parts;
  for (const Piece& piece : list.pieces) {
    std::string part = "#";
    part.append(std::to_string(piece.token));
    parts.push_back(piece.token == Piece::kText ? std::string(list.Text(piece)) : part);
  }
  return parts;
}

AddedToken Added(const std::string& content) {
  AddedToken token;
  token.content = content;
  return token;
}

TEST(AddedTokens, LeftmostThenLongest) {
  EXPECT_EQ(Extract({Added("<a>"), Added("<a><b>"), Added("b")}, "x<a><b>b<a>"),
            (Strings{"x", "#1", "#2", "#0"}));
  EXPECT_EQ(Extract({Added("ab"), Added("bcd")}, "abcd"), (Strings{"#0", "cd"}));
  EXPECT_EQ(Extract({Added("abc"), Added("b")}, "abx"), (Strings{"a", "#1", "x"}));
  EXPECT_EQ(Extract({Added("<a>")}, ""), Strings{});
}

TEST(AddedTokens, StripAndSingleWord) {
  AddedToken left = Added("<l>");
  left.lstrip = true;
  AddedToken right = Added("<r>");
  right.rstrip = true;
  EXPECT_EQ(Extract({left, right}, "a \u00A0<l> <r>  b"), (Strings{"a", "#0", " ", "#1", "b"}));
  AddedToken word = Added("tool");
  word.single_word = true;
  EXPECT_EQ(Extract({word}, "tool tools \u00E9tool -tool"),
            (Strings{"#0", " tools \u00E9tool -", "#0"}));
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedText) {
  AddedToken raw = Added("Day");
  AddedToken normalized = Added("Yes");
  normalized.normalized = true;
  EXPECT_EQ(Extract({raw, normalized}, "YES Day day", MakeLowercase()),
            (Strings{"#1", " ", "#0", " day"}));
}

TEST(AddedTokens, RefusesWhatTheReferenceLibraryWouldRenumber) {
  const Bpe model = MakeBpe({}, {}, {});
  const auto make = [&](const std::string& content, int64_t id) {
    AddedToken token = Added(content);
    token.id = id;
    AddedTokens({token}, model, nullptr, "test");
  };
  EXPECT_NO_THROW(make("b", 1));
  EXPECT_THROW(make("b", 4), Error);
  EXPECT_NO_THROW(make("x", 4));
  EXPECT_THROW(make("x", 5), Error);
  EXPECT_THROW(make("", 4), Error);
  EXPECT_THROW(Extract({Added("x"), Added("x")}, ""), Error);
}

TEST(PostProcessors, PutSpecialTokensAround) {
  const PostProcessor bos({7, PostProcessor::kText, 8});
  EXPECT_EQ(bos.Apply({1, 2}, true), (Ids{7, 1, 2, 8}));
  EXPECT_EQ(bos.Apply({1, 2}, false), (Ids{1, 2}));
  EXPECT_EQ(bos.Apply({}, true), (Ids{7, 8}));
  EXPECT_EQ(PostProcessor().Apply({1}, true), (Ids{1}));
}

TEST(Decoders, Join) {
  EXPECT_EQ(Decode(MakeJoinWithSpaces(), {"a", "", "b"}), "a  b");
  EXPECT_EQ(Decode(MakeByteLevelDecoder(), {"\u0120a", "\u00C3", "\u00A9", "\u00E3"}),
            " a\u00E9\uFFFD");
  EXPECT_EQ(Decode(MakeByteLevelDecoder(), {"<\u3042>", "\u0120"}), "<\u3042> ");
  EXPECT_EQ(Decode(MakeByteFallback(), {"a", "<0xE3>", "<0x81>", "<0x82>", "b"}), "a\u3042b");
  EXPECT_EQ(Decode(MakeByteFallback(), {"<0xE3>", "<0x81>", "b"}), "\uFFFD\uFFFDb");
  EXPECT_EQ(Decode(MakeByteFallback(), {"<0x4G>", "<0x41"}), "<0x4G><0x41");
  EXPECT_EQ(Decode(MakeReplaceStringDecoder("_", " "), {"_a", "b_"}), " ab ");
  EXPECT_EQ(Decode(MakeReplaceRegexDecoder(Pattern("_+"), " "), {"__a", "_"}), " a ");
  EXPECT_EQ(Decode(MakeMetaspaceDecoder("_", true), {"_a_b", "_c"}), "ab c");
  EXPECT_EQ(Decode(MakeMetaspaceDecoder("_", false), {"_a", "_c"}), " a c");
  EXPECT_EQ(Decode(MakeBpeDecoder("</w>"), {"a</w>", "b", "c</w>"}), "a bc");
}

TEST(Decoders, StripTokensOrTheWhole) {
  EXPECT_EQ(Decode(MakeStripDecoder(" ", 1, 0), {" a", "  b", "c"}), "a bc");
  EXPECT_EQ(Decode(MakeStripDecoder(" ", 0, 1), {" a ", "b  ", " "}), " ab ");
  std::vector<std::unique_ptr<Decoder>> parts;
  parts.push_back(MakeFuse());
  parts.push_back(MakeStripDecoder(" ", 2, 1));
  EXPECT_EQ(Decode(MakeDecoderSequence(std::move(parts)), {" ", " ", " a", " ", " "}), " a ");
}

TEST(Regexes, RefuseWhatTheyWouldReadDifferently) {
  for (const char* pattern :
       {"",        "[[^a]]",   "[a&&b]",  "[[:alpha:]]", "\\bx",    "\\h",         "\\R",
        "\\X",     "(a)\\1",   "(?<n>a)", "(?P<n>a)",    "a(?i)b",  "(?i:\\p{L})", "(?i:\u00E9)",
        "(?i:ss)", "a{2}+",    "a{2}?",   "\\p{Mn}",     "\\p{Cn}", "\\pL",        "\\p{Foo}",
        "[]a]",    "[a",       "\\x80",   "(*UCP)a",     "(?#x)",   "[\\P{L}]",    "\\Q",
        "a\\",     "(",        "\\k<a>",  "[\\W]",       "[[]a]",   "[a[b-c]]",    "[a-[b]]",
        "[[a]-z]", "[[a[b]]]", "[a[b",    "[a[b&&c]]"}) {
    EXPECT_THROW(Pattern(pattern), Error) << pattern;
  }
  for (const char* pattern :
       {"(?i:'s|'T)", "[^\\r\\n\\p{L}]?", "\\p{N}{1,3}", "a{,2}", "{", "[A-\\]]", "\\x{3042}",
        "\\u3042", "(?<!a)b(?=c)", "^a$", "[^\\S\\n]", "\\p{^L}", "\\P{Han}", "a++", "[\\w]"}) {
    EXPECT_NO_THROW(Pattern(pattern)) << pattern;
  }
}

TEST(Regexes, ANestedClassIsAUnion) {
  // BLOOM's: parentheses and the bar are members like any other.
  const auto split = [](const char* pattern, const std::string& text) {
    return Split(MakeSplitRegex(Pattern(pattern), SplitBehavior::kIsolated, false), text);
  };
  EXPECT_EQ(
      split(" ?[^(\\s|[.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C])]+",
            "Is (a|b), c\u3002d ok? 12\n"),
      (Strings{"Is", " (", "a", "|", "b", "),", " c", "\u3002", "d", " ok", "?", " 12", "\n"}));
  EXPECT_EQ(split("[a[\\d]b]+", "xa1bx"), (Strings{"x", "a1b", "x"}));
}

}  // namespace
}  // namespace quantmill
