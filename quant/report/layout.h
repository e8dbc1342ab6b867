// Laying out text for a terminal of 80 columns: aligned tables, wrapped lines, safe names.
#ifndef QUANTMILL_QUANT_REPORT_LAYOUT_H_
#define QUANTMILL_QUANT_REPORT_LAYOUT_H_

#include <string>
#include <string_view>
#include <vector>

namespace quantmill {

inline constexpr size_t kTextColumns = 80;

// `text` on one line and without anything a terminal would obey: control characters (C1 included)
// and bytes that are not UTF-8 become \xNN. Names come from files that nobody vouches for.
std::string Printable(std::string_view text);

// Columns that UTF-8 text takes, one a code point.
size_t DisplayWidth(std::string_view text);

// At most `columns` wide; what is cut out of the middle becomes "...": the ends of paths and of
// module names tell most.
std::string Elide(std::string_view text, size_t columns);

// Words of `text` in lines of at most kTextColumns (longer words stand alone). `first` begins the
// first line, spaces of the same width the others; each line ends with a newline.
std::string Wrap(std::string_view first, std::string_view text);

// Rows with aligned columns, two spaces apart. The first column is text, aligned left, and elided
// where the table would be wider than kTextColumns; the others are numbers, aligned right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  // As many cells as the header has.
  void Add(std::vector<std::string> cells);
  // A line below the row before, outside the columns.
  void AddNote(std::string text);
  // Every line begins with `indent` spaces and ends with a newline.
  std::string Render(size_t indent) const;

 private:
  struct Row {
    Row(std::vector<std::string> c) : cells(std::move(c)) {}  // NOLINT: a row is its cells
    std::vector<std::string> cells;
    std::vector<std::string> notes;
  };
  std::vector<Row> rows_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_LAYOUT_H_
