#include "quant/report/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0u) == 0x80u; }

// Bytes of the well-formed UTF-8 sequence that `text` begins with; 0 if it begins with none.
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80u) return 1;
  const size_t length = lead >= 0xF0u ? 4 : lead >= 0xE0u ? 3 : 2;
  if (lead < 0xC2u || lead > 0xF4u || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  // Overlong forms, surrogates, and what lies past U+10FFFF.
  if (lead == 0xE0u && byte(1) < 0xA0u) return 0;
  if (lead == 0xEDu && byte(1) >= 0xA0u) return 0;
  if (lead == 0xF0u && byte(1) < 0x90u) return 0;
  if (lead == 0xF4u && byte(1) >= 0x90u) return 0;
  return length;
}

bool IsControl(std::string_view sequence) {
  const auto lead = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return lead < 0x20u || lead == 0x7Fu;
  return lead == 0xC2u && static_cast<unsigned char>(sequence[1]) < 0xA0u;  // C1
}

// Byte position of the `column`-th code point.
size_t BytePosition(std::string_view text, size_t column) {
  size_t position = 0;
  while (position < text.size() && column > 0) {
    do {
      ++position;
    } while (position < text.size() && IsContinuation(text[position]));
    --column;
  }
  return position;
}

std::string Padding(size_t used, size_t width) {
  return std::string(width > used ? width - used : 0, ' ');
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const size_t taken = std::max<size_t>(length, 1);
    const std::string_view sequence = text.substr(0, taken);
    if (length == 0 || IsControl(sequence)) {
      for (const char c : sequence) {
        result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      }
    } else {
      result += sequence;
    }
    text.remove_prefix(taken);
  }
  return result;
}

size_t DisplayWidth(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::string Elide(std::string_view text, size_t columns) {
  const size_t width = DisplayWidth(text);
  if (width <= columns) return std::string(text);
  if (columns <= 3) return std::string(columns, '.');
  const size_t kept = columns - 3;
  const size_t head = kept / 2;
  return std::string(text.substr(0, BytePosition(text, head))) + "..." +
         std::string(text.substr(BytePosition(text, width - (kept - head))));
}

std::string Wrap(std::string_view first, std::string_view text) {
  std::string result(first);
  const std::string indent(DisplayWidth(first), ' ');
  size_t column = indent.size();
  bool line_has_word = false;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    if (word.empty()) continue;
    const size_t width = DisplayWidth(word);
    if (line_has_word && column + 1 + width > kTextColumns) {
      result += "\n" + indent;
      column = indent.size();
      line_has_word = false;
    }
    if (line_has_word) {
      result += ' ';
      ++column;
    }
    result += word;
    column += width;
    line_has_word = true;
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result + "\n";
}

void Table::Add(std::vector<std::string> cells) {
  Check(cells.size() == rows_[0].cells.size(), "Table: row and header differ in length");
  rows_.emplace_back(std::move(cells));
}

void Table::AddNote(std::string text) { rows_.back().notes.push_back(std::move(text)); }

std::string Table::Render(size_t indent) const {
  std::vector<size_t> widths(rows_[0].cells.size());
  for (const Row& row : rows_) {
    for (size_t c = 0; c < row.cells.size(); ++c) {
      widths[c] = std::max(widths[c], DisplayWidth(row.cells[c]));
    }
  }
  size_t others = indent;
  for (size_t c = 1; c < widths.size(); ++c) others += 2 + widths[c];
  constexpr size_t kLeastName = 12;
  const size_t room = others + kLeastName < kTextColumns ? kTextColumns - others : kLeastName;
  widths[0] = std::min(widths[0], room);

  std::string result;
  for (const Row& row : rows_) {
    std::string line = std::string(indent, ' ') + Elide(row.cells[0], widths[0]);
    line += Padding(DisplayWidth(line), indent + widths[0]);
    for (size_t c = 1; c < row.cells.size(); ++c) {
      line += "  " + Padding(DisplayWidth(row.cells[c]), widths[c]) + row.cells[c];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    result += line + "\n";
    for (const std::string& note : row.notes) {
      result += Wrap(std::string(indent + 2, ' '), note);
    }
  }
  return result;
}

}  // namespace quantmill
