// Output rows of a module with their codes unpacked, or in the words in which several formats store
// them: between such formats codes need not be unpacked.
#ifndef QUANTMILL_FORMATS_ROW_BAND_H_
#define QUANTMILL_FORMATS_ROW_BAND_H_

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/core/scheme.h"

namespace quantmill {

struct RowBand {
  // Without codes where there are words.
  QuantizedLinear rows;
  // [rows.out, WordsPerRow(rows.in, bits)] as PackCodes makes them, unused bits zero; or empty. In
  // `memory`, or in a mapped file that must stay: whoever copies a band copies no words.
  std::span<const std::byte> words;
  std::vector<std::byte> memory;

  bool has_words() const { return !words.empty(); }
  // Makes codes of the words. REQUIRES: has_words().
  void Unpack();
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_ROW_BAND_H_
