// The text on its way through the tokenizer: cut into pieces, some of which are already tokens.
#ifndef QUANTMILL_FORMATS_TOKENIZER_PIECES_H_
#define QUANTMILL_FORMATS_TOKENIZER_PIECES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quantmill {

// Bytes [begin, end) of PieceList::text; never empty unless it is a token.
struct Piece {
  static constexpr int32_t kText = -1;
  size_t begin = 0;
  size_t end = 0;
  int32_t token = kText;      // id of an added token, or kText
  bool starts_input = false;  // its first code point stems from the first one of the input
};

// Pieces in order. Parts of `text` that no piece covers have been dropped.
struct PieceList {
  std::string text;
  std::vector<Piece> pieces;

  std::string_view Text(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_PIECES_H_
