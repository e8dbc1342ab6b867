// Encoding of single blocks: scales by weighted least squares, then codes. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_ENCODE_H_
#define QUANTMILL_FORMATS_GGUF_ENCODE_H_

#include <array>

#include "formats/gguf/blocks.h"

namespace quantmill {

// A block to be encoded: element i is x[i] * 2^exponent. x is brought near 1 and the largest weight
// near 1, so that no sum of squares overflows or vanishes; powers of two keep that exact.
template <int size>
struct Samples {
  std::array<float, size> x;
  std::array<float, size> w;
  int exponent = 0;

  // importance may be null (equal weights).
  Samples(const float* values, const float* importance);
  bool zero() const;  // all elements are
};

// The smallest weighted squared error that the searches of fit.h find. Ties keep the first found.
void Encode(const Samples<kBlock>& samples, BlockQ4_0& block);
void Encode(const Samples<kBlock>& samples, BlockQ4_1& block);
void Encode(const Samples<kBlock>& samples, BlockQ5_0& block);
void Encode(const Samples<kBlock>& samples, BlockQ5_1& block);
void Encode(const Samples<kBlock>& samples, BlockQ8_0& block);
void Encode(const Samples<kBlock>& samples, BlockIq4Nl& block);
void Encode(const Samples<kBlock>& samples, BlockMxfp4& block);
void Encode(const Samples<kSuperBlock>& samples, BlockQ2K& block);
void Encode(const Samples<kSuperBlock>& samples, BlockQ3K& block);
void Encode(const Samples<kSuperBlock>& samples, BlockQ4K& block);
void Encode(const Samples<kSuperBlock>& samples, BlockQ5K& block);
void Encode(const Samples<kSuperBlock>& samples, BlockQ6K& block);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_ENCODE_H_
