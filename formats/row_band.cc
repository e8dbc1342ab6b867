#include "formats/row_band.h"

#include "formats/bitstream.h"
#include "kernels/core/error.h"

namespace quantmill {

void RowBand::Unpack() {
  Check(has_words(), "Unpack: a band of codes");
  rows.codes.resize(static_cast<size_t>(rows.out * rows.in));
  UnpackCodes(words, rows.out, rows.in, rows.scheme.bits, rows.codes);
  words = {};
}

}  // namespace quantmill
