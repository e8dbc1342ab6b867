// RefineCodes of one tile of rows; compiled once per instruction set (isa.h).
//
// Rows lie in the lanes, kTileCols to a strip, columns in solve order. D = q - w is kept for all
// columns. A block of columns takes its gradient G D fresh, then settles one column after the
// other, updating the gradient of those behind it in the block.
#include "kernels/cpu/code_kinds.h"
#include "kernels/cpu/search_kernels.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

// The scratch of one strip; strips are worked on one after another.
struct Layout {
  int64_t delta;     // [in][kTileCols]
  int64_t codes;     // int8 [in][kTileCols]
  int64_t scales;    // [groups][kTileCols]
  int64_t zeros;     // same
  int64_t gradient;  // [kSolveBlock][kTileCols]
  int64_t square;    // [kSolveBlock][kSolveBlock]: the block's own square of G
  int64_t total;

  Layout(int64_t in, int64_t groups) {
    int64_t used = 0;
    const auto take = [&used](int64_t floats) {
      const int64_t at = used;
      used += RoundUp(floats, 16);
      return at;
    };
    delta = take(RoundUp(in, kTileRows) * kTileCols);
    codes = take(RoundUp(in * kTileCols, 4) / 4);
    scales = take(groups * kTileCols);
    zeros = take(groups * kTileCols);
    gradient = take(kSolveBlock * kTileCols);
    square = take(kSolveBlock * kSolveBlock);
    total = used;
  }
};

template <typename Codes>
class StripRefiner {
 public:
  StripRefiner(const GptqTile& tile, const float* diagonal, int64_t first_row, const Codes& kind)
      : t_(tile),
        diagonal_(diagonal),
        first_(first_row),
        rows_(Least(kTileCols, tile.rows - first_row)),
        kind_(kind),
        at_(tile.in, tile.groups),
        delta_(tile.scratch + at_.delta),
        codes_(reinterpret_cast<int8_t*>(tile.scratch + at_.codes)) {}

  void Run(int sweeps) {
    LoadGrid();
    LoadCodes();
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      for (int64_t begin = 0; begin < t_.in; begin += kSolveBlock) {
        const int64_t count = Least(kSolveBlock, t_.in - begin);
        LoadSquare(begin, count);
        Gradient(begin, count);
        for (int64_t k = 0; k < count; ++k) Settle(begin, k, count);
      }
    }
    StoreCodesBack();
  }

 private:
  float* Delta(int64_t k) const { return delta_ + k * kTileCols; }
  float* GradientOf(int64_t k) const { return t_.scratch + at_.gradient + k * kTileCols; }
  float* SquareRow(int64_t k) const { return t_.scratch + at_.square + k * kSolveBlock; }
  int64_t GridAt(int64_t column) const { return t_.group_of[column] * kTileCols; }

  void LoadGrid() {
    for (int64_t g = 0; g < t_.groups; ++g) {
      for (int64_t c = 0; c < kTileCols; ++c) {
        const int64_t r = first_ + c;
        const int64_t to = g * kTileCols + c;
        t_.scratch[at_.scales + to] = c < rows_ ? t_.scales[r * t_.scales_stride + g] : 1.0f;
        t_.scratch[at_.zeros + to] = c < rows_ && t_.zeros != nullptr
                                         ? static_cast<float>(t_.zeros[r * t_.zeros_stride + g])
                                         : 0.0f;
      }
    }
  }

  // Codes into solve order, and D from them. Missing rows have code 0 and D 0.
  void LoadCodes() {
    std::memset(codes_, 0, static_cast<size_t>(t_.in * kTileCols));
    std::memset(delta_, 0, static_cast<size_t>(t_.in * kTileCols) * sizeof(float));
    for (int64_t c = 0; c < rows_; ++c) {
      const int8_t* codes = t_.codes + (first_ + c) * t_.codes_stride;
      const float* weight = t_.weight + (first_ + c) * t_.weight_stride;
      for (int64_t k = 0; k < t_.in; ++k) {
        codes_[k * kTileCols + c] = codes[t_.order[k]];
        delta_[k * kTileCols + c] = weight[t_.order[k]];
      }
    }
    for (int64_t k = 0; k < t_.in; ++k) {
      for (int64_t v = 0; v < kTileVecs; ++v) {
        const Vec scale = Load(t_.scratch + at_.scales + GridAt(k) + v * kLanes);
        const Vec zero = Load(t_.scratch + at_.zeros + GridAt(k) + v * kLanes);
        const Vec q = kind_.Number(codes_ + k * kTileCols + v * kLanes, zero) * scale;
        float* delta = Delta(k) + v * kLanes;
        Store(delta, q - Load(delta));
      }
    }
    // Missing rows: whatever their code 0 stands for, they do not move others, being other lanes.
  }

  // G of the block's own columns, all of the square.
  void LoadSquare(int64_t begin, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float* row = t_.factor + (begin + i) * t_.factor_stride + begin;
      SquareRow(i)[i] = diagonal_[begin + i];
      for (int64_t j = 0; j < i; ++j) {
        SquareRow(i)[j] = row[j];
        SquareRow(j)[i] = row[j];
      }
    }
  }

  // G D of the block's columns.
  void Gradient(int64_t begin, int64_t count) {
    const float* lower = t_.factor + begin * t_.factor_stride;
    const int64_t end = begin + count;
    const float* below = t_.factor + end * t_.factor_stride + begin;
    int64_t k = 0;
    for (; k + kTileRows <= count; k += kTileRows) {
      const Tile left = TileProduct<true>(lower + k * t_.factor_stride, t_.factor_stride, delta_,
                                          kTileCols, begin);
      const Tile own = TileProduct<true>(SquareRow(k), kSolveBlock, Delta(begin), kTileCols, count);
      const Tile right =
          TileProduct<false>(below + k, t_.factor_stride, Delta(end), kTileCols, t_.in - end);
      for (int64_t r = 0; r < kTileRows; ++r) {
        for (int64_t v = 0; v < kTileVecs; ++v) {
          Store(GradientOf(k + r) + v * kLanes, left.v[r][v] + own.v[r][v] + right.v[r][v]);
        }
      }
    }
    for (; k < count; ++k) GradientRow(begin, k, count);
  }

  // One column of it: the ragged last ones.
  void GradientRow(int64_t begin, int64_t k, int64_t count) {
    for (int64_t v = 0; v < kTileVecs; ++v) {
      Vec sum = {};
      for (int64_t j = 0; j < begin; ++j) {
        sum = Fma(Broadcast(t_.factor[(begin + k) * t_.factor_stride + j]),
                  Load(Delta(j) + v * kLanes), sum);
      }
      for (int64_t j = 0; j < count; ++j) {
        sum = Fma(Broadcast(SquareRow(k)[j]), Load(Delta(begin + j) + v * kLanes), sum);
      }
      for (int64_t j = begin + count; j < t_.in; ++j) {
        sum = Fma(Broadcast(t_.factor[j * t_.factor_stride + begin + k]),
                  Load(Delta(j) + v * kLanes), sum);
      }
      Store(GradientOf(k) + v * kLanes, sum);
    }
  }

  // The best code of column begin + k given all others.
  void Settle(int64_t begin, int64_t k, int64_t count) {
    const float* g_row = SquareRow(k);
    if (!(g_row[k] > 0)) return;
    const int64_t column = begin + k;
    Vec change[kTileVecs];
    for (int64_t v = 0; v < kTileVecs; ++v) {
      const Vec scale = Load(t_.scratch + at_.scales + GridAt(column) + v * kLanes);
      const Vec zero = Load(t_.scratch + at_.zeros + GridAt(column) + v * kLanes);
      int8_t* code = codes_ + column * kTileCols + v * kLanes;
      const Vec old = kind_.Number(code, zero) * scale;
      const Vec best = old - Load(GradientOf(k) + v * kLanes) / Broadcast(g_row[k]);
      const Rounded rounded = kind_.Round(best, scale, zero);
      change[v] = rounded.number * scale - old;
      StoreCodes(code, rounded.code);
      float* delta = Delta(column) + v * kLanes;
      Store(delta, Load(delta) + change[v]);
    }
    for (int64_t j = k + 1; j < count; ++j) {
      const Vec factor = Broadcast(g_row[j]);
      for (int64_t v = 0; v < kTileVecs; ++v) {
        float* gradient = GradientOf(j) + v * kLanes;
        Store(gradient, Fma(factor, change[v], Load(gradient)));
      }
    }
  }

  void StoreCodesBack() {
    for (int64_t c = 0; c < rows_; ++c) {
      int8_t* codes = t_.codes + (first_ + c) * t_.codes_stride;
      for (int64_t k = 0; k < t_.in; ++k) codes[t_.order[k]] = codes_[k * kTileCols + c];
    }
  }

  const GptqTile& t_;
  const float* const diagonal_;
  const int64_t first_;
  const int64_t rows_;
  const Codes kind_;
  const Layout at_;
  float* const delta_;
  int8_t* const codes_;
};

void Refine(const GptqTile& tile, const float* diagonal, int sweeps) {
  WithCodes(tile.range, [&](const auto& kind) {
    for (int64_t row = 0; row < tile.rows; row += kTileCols) {
      StripRefiner(tile, diagonal, row, kind).Run(sweeps);
    }
  });
}

int64_t Scratch(int64_t /*rows*/, int64_t in, int64_t groups) { return Layout(in, groups).total; }

}  // namespace

const RefineKernels kRefineKernels = {&Refine, &Scratch};

}  // namespace quantmill::cpu::QUANTMILL_ISA
