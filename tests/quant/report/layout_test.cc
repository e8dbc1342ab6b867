#include "quant/report/layout.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace quantmill {
namespace {

void ExpectFits(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(DisplayWidth(line), kTextColumns) << line;
    EXPECT_FALSE(line.ends_with(' ')) << line;
  }
}

TEST(LayoutTest, PrintableLeavesNothingForTheTerminalToObey) {
  EXPECT_EQ(Printable("layers.0"), "layers.0");
  EXPECT_EQ(Printable("größe ✓"), "größe ✓");
  EXPECT_EQ(Printable("a\x1b[2Jb\n\t\x7f"), "a\\x1b[2Jb\\x0a\\x09\\x7f");
  EXPECT_EQ(Printable("\xc2\x9b"), "\\xc2\\x9b");                    // C1
  EXPECT_EQ(Printable("\xff\xc3"), "\\xff\\xc3");                    // no UTF-8, cut short
  EXPECT_EQ(Printable("\xc0\xaf"), "\\xc0\\xaf");                    // overlong
  EXPECT_EQ(Printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // surrogate
  EXPECT_EQ(Printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // past U+10FFFF
  EXPECT_EQ(Printable(""), "");
}

TEST(LayoutTest, ElideCutsTheMiddleAtCodePoints) {
  EXPECT_EQ(Elide("abc", 3), "abc");
  EXPECT_EQ(Elide("abcdefghij", 7), "ab...ij");
  EXPECT_EQ(Elide("äöüäöüäöü", 5), "ä...ü");
  EXPECT_EQ(Elide("abcdef", 2), "..");
  EXPECT_EQ(Elide("", 0), "");
}

TEST(LayoutTest, WrapIndentsBelowTheFirstWord) {
  EXPECT_EQ(Wrap("  - ", "short"), "  - short\n");
  EXPECT_EQ(Wrap("  - ", ""), "  -\n");
  std::string words;
  for (int i = 0; i < 60; ++i) words += "word ";
  const std::string text = Wrap("  - ", words);
  ExpectFits(text);
  EXPECT_NE(text.find("\n    word"), std::string::npos);
  const std::string longest(200, 'x');
  EXPECT_EQ(Wrap("  - ", "a " + longest + " b"), "  - a\n    " + longest + "\n    b\n");
}

TEST(LayoutTest, TableAlignsAndElidesTheFirstColumn) {
  Table table({"name", "value"});
  table.Add({"a", "1"});
  table.Add({"bb", "1,000"});
  table.AddNote("below");
  EXPECT_EQ(table.Render(1),
            " name  value\n"
            " a         1\n"
            " bb    1,000\n"
            "   below\n");
  Table wide({"name", "value"});
  wide.Add({std::string(100, 'n'), "1"});
  ExpectFits(wide.Render(2));
  EXPECT_EQ(Table({"only", "header"}).Render(0), "only  header\n");
}

}  // namespace
}  // namespace quantmill
