#include "formats/gguf/sentencepiece_merges.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

struct Merge {
  float score = 0;
  size_t left_points = 0;  // code points of both parts
  size_t right_points = 0;
  size_t left = 0;  // indices of pieces
  size_t right = 0;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> MergesFromScores(
    std::span<const std::string> pieces, std::span<const float> scores) {
  Check(pieces.size() == scores.size(), "MergesFromScores: one score for each piece");
  std::unordered_map<std::string_view, size_t> index;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].empty()) index.emplace(pieces[i], i);
  }
  std::vector<Merge> merges;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string_view piece = pieces[i];
    const auto first = static_cast<std::ptrdiff_t>(merges.size());
    if (piece.empty()) continue;
    for (size_t cut = Utf8Length(piece[0]); cut < piece.size(); cut += Utf8Length(piece[cut])) {
      const auto left = index.find(piece.substr(0, cut));
      const auto right = index.find(piece.substr(cut));
      if (left == index.end() || right == index.end()) continue;
      merges.push_back({scores[i], CountCodePoints(left->first), CountCodePoints(right->first),
                        left->second, right->second});
    }
    std::sort(merges.begin() + first, merges.end(), [](const Merge& a, const Merge& b) {
      return std::tie(a.left, a.right) < std::tie(b.left, b.right);
    });
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.score, a.left_points, a.right_points) >
           std::tie(b.score, b.left_points, b.right_points);
  });
  std::vector<std::pair<std::string, std::string>> result;
  result.reserve(merges.size());
  for (const Merge& merge : merges) result.emplace_back(pieces[merge.left], pieces[merge.right]);
  return result;
}

}  // namespace quantmill
