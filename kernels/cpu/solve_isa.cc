// Grids (formats.md section 4.3) and quadratic forms.
#include "kernels/cpu/code_kinds.h"
#include "kernels/cpu/solve_kernels.h"
#include "kernels/cpu/tile_gemm.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

void Range(const float* w, int64_t n, float* lo, float* hi) {
  Vec least = {};
  Vec most = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec x = Load(w + i);
    least = Min(least, x);
    most = Max(most, x);
  }
  float smallest = -ReduceMax(-least);
  float largest = ReduceMax(most);
  for (; i < n; ++i) {
    smallest = w[i] < smallest ? w[i] : smallest;
    largest = w[i] > largest ? w[i] : largest;
  }
  *lo = smallest;
  *hi = largest;
}

template <typename Codes>
bool RoundRow(const Codes& kind, const float* w, int64_t n, Vec scale, Vec zero, int8_t* codes) {
  VecInt unordered = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec x = Load(w + i);
    unordered |= IsNaN(x);
    StoreCodes(codes + i, kind.Round(x, scale, zero).code);
  }
  if (i < n) {
    float tail[kLanes] = {};
    int8_t tail_codes[kLanes];
    for (int64_t j = i; j < n; ++j) tail[j - i] = w[j];
    const Vec x = Load(tail);
    unordered |= IsNaN(x);
    StoreCodes(tail_codes, kind.Round(x, scale, zero).code);
    for (int64_t j = i; j < n; ++j) codes[j] = tail_codes[j - i];
  }
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= unordered[lane];
  return any == 0;
}

bool RoundCodes(const float* w, int64_t n, float scale, float zero, const CodeRange& range,
                int8_t* codes) {
  return WithCodes(range, [&](const auto& kind) {
    return RoundRow(kind, w, n, Broadcast(scale), Broadcast(zero), codes);
  });
}

// ---- quadratic form ----
// d G d^T = 2 sum_i d_i y_i with y_i = sum_{j < i} G[i, j] d_j + d_i diagonal[i] / 2. Rows of delta
// lie in the lanes. y is summed in F32 over spans of kSpan inputs; the spans in F64.

constexpr int64_t kSpan = 256;
constexpr int64_t kRowBlock = 64;  // a [64, 256] piece of gram stays in L2 while all strips use it

struct Strip {
  const float* d;  // [in, kTileCols]: delta transposed
  double* total;   // [kTileCols]
};

void AddTo(double* total, const Vec (&part)[kTileVecs]) {
  float lanes[kTileCols];
  for (int64_t v = 0; v < kTileVecs; ++v) Store(lanes + v * kLanes, part[v]);
  for (int64_t c = 0; c < kTileCols; ++c) total[c] += static_cast<double>(lanes[c]);
}

// kTileRows rows of gram from row i on, inputs [j0, j0 + depth), all left of the diagonal.
void AddTile(const float* gram, int64_t stride, int64_t i, int64_t j0, int64_t depth,
             const Strip& strip) {
  const Tile y =
      TileProduct<true>(gram + i * stride + j0, stride, strip.d + j0 * kTileCols, kTileCols, depth);
  Vec part[kTileVecs] = {};
  for (int64_t r = 0; r < kTileRows; ++r) {
    for (int64_t v = 0; v < kTileVecs; ++v) {
      const Vec d = Load(strip.d + (i + r) * kTileCols + v * kLanes);
      part[v] = Fma(d, y.v[r][v], part[v]);
    }
  }
  AddTo(strip.total, part);
}

// One row of gram, inputs [j0, i), and half the diagonal element.
void AddRow(const float* gram, int64_t stride, int64_t i, int64_t j0, float diagonal,
            const Strip& strip) {
  Vec part[kTileVecs];
  for (int64_t v = 0; v < kTileVecs; ++v) {
    const float* d = strip.d + v * kLanes;
    const Vec own = Load(d + i * kTileCols);
    Vec y = own * Broadcast(diagonal * 0.5f);
    for (int64_t j = j0; j < i; ++j) {
      y = Fma(Broadcast(gram[i * stride + j]), Load(d + j * kTileCols), y);
    }
    part[v] = own * y;
  }
  AddTo(strip.total, part);
}

void AddBlock(const float* gram, int64_t stride, int64_t begin, int64_t end, const float* diagonal,
              const Strip* strips, int64_t count) {
  for (int64_t j0 = 0; j0 < end; j0 += kSpan) {
    for (int64_t s = 0; s < count; ++s) {
      for (int64_t i = begin; i + kTileRows <= end; i += kTileRows) {
        const int64_t depth = Least(kSpan, i - j0);
        if (depth > 0) AddTile(gram, stride, i, j0, depth, strips[s]);
      }
    }
  }
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t tile = begin + (i - begin) / kTileRows * kTileRows;
      const int64_t j0 = tile + kTileRows <= end ? tile : 0;  // the ragged last rows: all of it
      AddRow(gram, stride, i, j0, diagonal[i], strips[s]);
    }
  }
}

int64_t QuadraticScratch(int64_t rows, int64_t in) {
  const int64_t padded = RoundUp(rows, kTileCols);
  return padded * in + 2 * padded + padded / kTileCols * 8;  // strips, totals, Strip records
}

void Quadratic(const float* delta, int64_t delta_stride, int64_t rows, int64_t in,
               const float* gram, int64_t gram_stride, const float* diagonal, float* result,
               float* scratch) {
  const int64_t count = RoundUp(rows, kTileCols) / kTileCols;
  auto* totals = reinterpret_cast<double*>(scratch);
  auto* strips = reinterpret_cast<Strip*>(totals + count * kTileCols);
  float* data = scratch + 2 * count * kTileCols + count * 8;
  static_assert(sizeof(Strip) <= 8 * sizeof(float));
  for (int64_t s = 0; s < count; ++s) {
    float* d = data + s * in * kTileCols;
    const int64_t held = Least(kTileCols, rows - s * kTileCols);
    if (held < kTileCols) {
      std::memset(d, 0, static_cast<size_t>(in * kTileCols) * sizeof(float));
    }
    Transpose(delta + s * kTileCols * delta_stride, delta_stride, held, in, d, kTileCols);
    for (int64_t c = 0; c < kTileCols; ++c) totals[s * kTileCols + c] = 0;
    strips[s] = {d, totals + s * kTileCols};
  }
  for (int64_t begin = 0; begin < in; begin += kRowBlock) {
    AddBlock(gram, gram_stride, begin, Least(in, begin + kRowBlock), diagonal, strips, count);
  }
  for (int64_t r = 0; r < rows; ++r) result[r] = static_cast<float>(2 * totals[r]);
}

}  // namespace

const SolveKernels kSolveKernels = {&Range, &RoundCodes, &Transpose, &Quadratic, &QuadraticScratch};

}  // namespace quantmill::cpu::QUANTMILL_ISA
