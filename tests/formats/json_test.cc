#include "formats/json.h"

#include <nlohmann/json.hpp>

#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

TEST(ParseJson, ReadsValues) {
  const nlohmann::json value = ParseJson(R"( {"a": [1, -2.5, null, true], "b": {"a": "x"}} )", "f");
  EXPECT_EQ(value["a"][1], -2.5);
  EXPECT_EQ(value["b"]["a"], "x");
  EXPECT_EQ(ParseJson("3", "f"), 3);
}

TEST(ParseJson, DuplicateKeys) {
  ExpectError(ErrorCode::kBadInput, {"f: ", "key 'a' given twice", "byte offset 10"},
              [] { ParseJson(R"({"a":1,"a":2})", "f"); });
  ExpectError(ErrorCode::kBadInput, {"key 'k'"},
              [] { ParseJson(R"({"a":[{"k":1,"l":{"k":0},"k":2}]})", "f"); });
  EXPECT_NO_THROW(ParseJson(R"([{"k":1},{"k":2},{"l":{"k":3}}])", "f"));
}

TEST(ParseJson, Refuses) {
  const std::vector<std::string> bad = {"",         "{",   "{\"a\"}",      "[1,]",
                                        "{} x",     "nul", "\"\xC0\x80\"", "'a'",
                                        "[1] // c", "NaN", "{\"a\":1}\n{"};
  for (const std::string& text : bad) {
    ExpectError(ErrorCode::kBadInput, {"byte offset"}, [&] { ParseJson(text, "f"); });
  }
  // A NUL ends the parser's input: what follows must not go unseen.
  ExpectError(ErrorCode::kBadInput, {"NUL byte", "byte offset 2"},
              [] { ParseJson(std::string("{}\0{", 4), "f"); });
}

TEST(ParseJson, Depth) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_NO_THROW(ParseJson(nested(kMaxJsonDepth), "f"));
  ExpectError(ErrorCode::kBadInput, {"nested deeper"},
              [&] { ParseJson(nested(kMaxJsonDepth + 1), "f"); });
  ExpectError(ErrorCode::kBadInput, {"nested deeper"}, [&] { ParseJson(nested(1'000'000), "f"); });
}

}  // namespace
}  // namespace quantmill::test
