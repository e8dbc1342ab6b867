// The kernels of MatMul with rounded inputs; compiled once per instruction set (isa.h).
#include <cstddef>

#include "kernels/cpu/e4m3.h"
#include "kernels/cpu/rounded_kernels.h"
#include "kernels/cpu/row_tiles.h"
#include "kernels/cpu/simd_math.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

constexpr int kCols = kTileCols;

VecInt LoadInts(const void* p) {
  VecInt v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
Vec AsFloats(VecInt v) { return __builtin_convertvector(v, Vec); }

// ---- rounding a token ----

// The codes of kLanes integers, or kLanes E4M3 numbers.
struct Rounding {
  bool divides = false;
  float factor = 0;  // multiplies, or divides
  int zero = 0;
};

Vec LoadX(const TokenInputs& x, int64_t i, int64_t n) {
  if (!x.bf16) {
    const float* p = static_cast<const float*>(x.data) + i;
    return n == kLanes ? Load(p) : LoadPart(p, n);
  }
  const uint16_t* p = static_cast<const uint16_t*>(x.data) + i;
  if (n == kLanes) return LoadBF16(p);
  uint16_t lanes[kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(uint16_t));
  return LoadBF16(lanes);
}

int64_t Least(int64_t a, int64_t b) { return b < a ? b : a; }

// The largest magnitude; NaN if there is one.
float AbsMax(const TokenInputs& x, int64_t begin, int64_t end) {
  Vec top{};
  for (int64_t i = begin; i < end; i += kLanes) {
    const Vec magnitude = Magnitude(LoadX(x, i, Least(kLanes, end - i)));
    top = (IsNaN(magnitude) | (magnitude > top)) ? magnitude : top;
  }
  float lanes[kLanes];
  Store(lanes, top);
  float max = 0;
  for (const float lane : lanes) {
    if (lane > max || lane != lane) max = lane;  // NOLINT(misc-redundant-expression): NaN
    if (max != max) break;                       // NOLINT(misc-redundant-expression)
  }
  return max;
}

VecInt IntegerCodes(Vec x, const Rounding& rounding) {
  const Vec scaled = rounding.divides ? x / Set1(rounding.factor) : x * Set1(rounding.factor);
  // Far outside every code, but where Round is exact; NaN becomes 0, its scale is NaN already.
  const Vec known = IsNaN(scaled) ? Vec{} : scaled;
  const Vec rounded = Round(Min(Max(known, Set1(-1024.0f)), Set1(1024.0f)));
  const Vec code = rounded + Set1(static_cast<float>(rounding.zero));
  return __builtin_convertvector(Min(Max(code, Set1(-128.0f)), Set1(127.0f)), VecInt);
}

void StoreCodes(uint8_t* to, VecInt codes, int64_t n) {
  using Bytes = uint8_t __attribute__((vector_size(kLanes)));
  const Bytes bytes = __builtin_convertvector(codes, Bytes);
  if (n == kLanes) {
    std::memcpy(to, &bytes, sizeof(bytes));  // one store; any other length is a call
  } else {
    std::memcpy(to, &bytes, static_cast<size_t>(n));
  }
}
void StoreCodes(int16_t* to, VecInt codes, int64_t n) {
  using Shorts = int16_t __attribute__((vector_size(kLanes * 2)));
  const Shorts shorts = __builtin_convertvector(codes, Shorts);
  if (n == kLanes) {
    std::memcpy(to, &shorts, sizeof(shorts));
  } else {
    std::memcpy(to, &shorts, static_cast<size_t>(n) * sizeof(int16_t));
  }
}

int32_t SumOf(VecInt v) {
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// Inputs [begin, end) to the steps at `to`; returns the sum of code - zero.
template <typename Code>
int32_t RoundIntegers(const RoundArgs& a, const Rounding& rounding, int64_t begin, int64_t end,
                      Code* to) {
  constexpr int kOffset = sizeof(Code) == 1 ? kByteOffset : 0;
  VecInt sum{};
  for (int64_t i = begin; i < end; i += kLanes) {
    const int64_t n = Least(kLanes, end - i);
    const VecInt codes = IntegerCodes(LoadX(a.x, i, n), rounding);
    StoreCodes(to + (i - begin), codes + kOffset, n);
    if (a.sums == nullptr) continue;
    VecInt present{};
    for (int lane = 0; lane < kLanes; ++lane) present[lane] = lane < n ? -1 : 0;
    sum += (codes - rounding.zero) & present;
  }
  return SumOf(sum);
}

template <typename Number>
void RoundNumbers(const RoundArgs& a, float scale, int64_t begin, int64_t end, Number* to) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const int64_t n = Least(kLanes, end - i);
    StorePartAs(to + (i - begin), RoundToE4M3(LoadX(a.x, i, n) / Set1(scale)), n);
  }
}

void RoundSegment(const RoundArgs& a, const Rounding& rounding, int64_t begin, int64_t end) {
  const int64_t segment = begin / a.segment;
  char* to = static_cast<char*>(a.steps) + segment * a.segment_steps * 4;
  int32_t sum = 0;
  int64_t bytes = end - begin;
  switch (a.type) {
    case StepType::kBytes:
      sum = RoundIntegers(a, rounding, begin, end, reinterpret_cast<uint8_t*>(to));
      break;
    case StepType::kShorts:
      sum = RoundIntegers(a, rounding, begin, end, reinterpret_cast<int16_t*>(to));
      bytes *= 2;
      break;
    case StepType::kPairs:
      RoundNumbers(a, rounding.factor, begin, end, reinterpret_cast<uint16_t*>(to));
      bytes *= 2;
      break;
    case StepType::kFloats:
      RoundNumbers(a, rounding.factor, begin, end, reinterpret_cast<float*>(to));
      bytes *= 4;
      break;
  }
  std::memset(to + bytes, 0, static_cast<size_t>(a.segment_steps * 4 - bytes));
  if (a.sums != nullptr) a.sums[segment] = sum;
}

// The scale of a group goes to a.scales.
Rounding RoundingOf(const RoundArgs& a, float absmax, float* scale) {
  const bool integers = a.type == StepType::kBytes || a.type == StepType::kShorts;
  const bool nan = absmax != absmax;  // NOLINT(misc-redundant-expression): a NaN
  Rounding rounding;
  if (!a.dynamic) {
    *scale = nan ? absmax : a.scale;
    rounding = {true, a.scale, a.zero};
  } else if (integers) {
    *scale = absmax / 127.0f;
    rounding.factor = absmax > 0.0f ? 127.0f / absmax : 0.0f;
  } else {
    constexpr float kLeast = 1.0f / (448.0f * 512.0f);
    const float wanted = absmax / 448.0f;
    *scale = wanted < kLeast ? kLeast : wanted;
    rounding = {true, *scale, 0};
  }
  return rounding;
}

void RoundToken(const RoundArgs& a) {
  float* scale = a.scales;
  for (int64_t begin = 0; begin < a.in; begin += a.group, ++scale) {
    const int64_t end = Least(a.in, begin + a.group);
    const Rounding rounding = RoundingOf(a, AbsMax(a.x, begin, end), scale);
    for (int64_t s = begin; s < end; s += a.segment) {
      RoundSegment(a, rounding, s, Least(end, s + a.segment));
    }
  }
}

// ---- rounding a token whose groups have rounded scales ----

float PowerScale(float absmax, bool fp4) {
  int32_t bits;
  std::memcpy(&bits, &absmax, sizeof(bits));
  // A quarter of the step between powers of two takes 1.75 of one to the next.
  const int32_t exponent = ((bits + 0x200000) >> 23) - (fp4 ? 2 : 8);
  bits = (exponent < 1 ? 1 : exponent) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

float BlockScale(const BlockRounding& rounding, float absmax) {
  if (rounding.powers) return PowerScale(absmax, rounding.fp4);
  const float global = rounding.global_scale;
  return RoundToE4M3(Set1(global * (absmax / 6.0f)))[0] / global;
}

template <typename Out>
void RoundBlocksAs(const BlockRoundArgs& a) {
  const BlockRounding& rounding = a.rounding;
  for (int64_t begin = 0; begin < a.in; begin += rounding.group_size) {
    const int64_t end = Least(a.in, begin + rounding.group_size);
    const float absmax = AbsMax(a.x, begin, end);
    const bool finite = absmax - absmax == 0.0f;  // NOLINT(misc-redundant-expression)
    const float scale = finite ? BlockScale(rounding, absmax) : 0.0f;
    for (int64_t i = begin; i < end; i += kLanes) {
      const int64_t n = Least(kLanes, end - i);
      Vec value{};
      if (!finite) {
        value = Set1(absmax - absmax);  // NaN
      } else if (scale > 0.0f) {
        const Vec quotient = LoadX(a.x, i, n) / Set1(scale);
        value = (rounding.fp4 ? RoundToE2M1(quotient) : RoundToE4M3(quotient)) * Set1(scale);
      }
      StorePartAs(static_cast<Out*>(a.out) + i, value, n);
    }
  }
}

void RoundBlocks(const BlockRoundArgs& a) {
  a.x.bf16 ? RoundBlocksAs<uint16_t>(a) : RoundBlocksAs<float>(a);
}

// ---- integer tiles ----

// Sums are I32 in the registers of Vec (dot_tile.h): loads, stores and zeros move bits.
struct StepIntegers {
  using Weight = VecInt;
  static Weight LoadWeight(const float* p) { return LoadInts(p); }
  static Vec MulAdd(const float* x, Weight w, Vec sum) {
    int32_t step;
    std::memcpy(&step, x, sizeof(step));
#if defined(__AVX512VNNI__)
    return _mm512_castsi512_ps(_mm512_dpbusd_epi32(
        _mm512_castps_si512(sum), _mm512_set1_epi32(step), reinterpret_cast<__m512i>(w)));
#elif defined(__AVX512F__)
    const __m512i products =
        _mm512_madd_epi16(_mm512_set1_epi32(step), reinterpret_cast<__m512i>(w));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), products));
#elif defined(__AVX2__)
    const __m256i products =
        _mm256_madd_epi16(_mm256_set1_epi32(step), reinterpret_cast<__m256i>(w));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), products));
#else
    // Two signed halves; their products stay below 2^17.
    const VecInt total =
        LoadInts(&sum) + ((w << 16) >> 16) * static_cast<int16_t>(step) + (w >> 16) * (step >> 16);
    Vec result;
    std::memcpy(&result, &total, sizeof(total));
    return result;
#endif
  }
};

#if defined(__AVX512VNNI__)
constexpr StepType kIntegerStep = StepType::kBytes;
constexpr std::nullptr_t kUnpack = nullptr;
#else
// Bytes 0 and 1 of each quad to the first step, 2 and 3 to the second, sign-extended.
void Unpack(const int8_t* quads, int64_t count, int16_t* steps) {
  for (int64_t i = 0; i < count; ++i) {
    for (int c = 0; c < kCols; c += kLanes) {
      const VecInt quad = LoadInts(quads + (i * kCols + c) * 4);
      const VecInt first = (((quad << 24) >> 24) & 0xFFFF) | (((quad << 16) >> 24) << 16);
      const VecInt second = (((quad << 8) >> 24) & 0xFFFF) | ((quad >> 24) << 16);
      std::memcpy(steps + (i * 2 * kCols + c) * 2, &first, sizeof(first));
      std::memcpy(steps + ((i * 2 + 1) * kCols + c) * 2, &second, sizeof(second));
    }
  }
}
constexpr StepType kIntegerStep = StepType::kShorts;
constexpr auto* kUnpack = Unpack;
#endif

// ---- scaling a segment ----

void Fold(const FoldArgs& a) {
  for (int c = 0; c < kCols; c += kLanes) {
    const Vec w_scale = Load(a.w_scales + c);
    const VecInt offset = a.integers ? LoadInts(a.offsets + c) : VecInt{};
    const VecInt zero = a.zeros != nullptr ? LoadInts(a.zeros + c) : VecInt{};
    for (int64_t r = 0; r < a.rows; ++r) {
      const int64_t at = r * kCols + c;
      Vec product;
      if (a.integers) {
        VecInt sum = LoadInts(a.sums + at) - offset;
        if (a.zeros != nullptr) sum -= zero * a.x_sums[r * a.x_sums_row];
        product = AsFloats(sum);
      } else {
        product = Load(a.sums + at);
      }
      const Vec scaled = (product * w_scale) * Set1(a.x_scales[r * a.x_scales_row]);
      Store(a.out + at, a.first ? scaled : Load(a.out + at) + scaled);
    }
  }
}

}  // namespace

extern const RoundedKernels kRoundedKernels;
const RoundedKernels kRoundedKernels = {
    .integer_step = kIntegerStep,
    .round = RoundToken,
    .round_blocks = RoundBlocks,
    .tile = Tile<StepIntegers>,
    .unpack = kUnpack,
    .fold = Fold,
};

}  // namespace quantmill::cpu::QUANTMILL_ISA
