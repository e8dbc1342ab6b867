// The GPTQ column solve of one tile of rows (algorithms.md section 1, steps 6 and 7).
//
// Rows lie in the lanes, kTileCols to a strip. The tile is solved from left to right in blocks of
// columns and keeps only E, the scaled errors e_k of the columns done, [in, kTileCols] per strip: a
// block is gathered from the weight, loses E R[done, block] (the updates that GPTQ applies from the
// left, taken together) and is then solved. So the weight is read once and never copied whole.
#include "kernels/cpu/code_kinds.h"
#include "kernels/cpu/solve_kernels.h"
#include "kernels/cpu/tile_gemm.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

// The scratch of one tile.
struct Layout {
  int64_t strips;
  int64_t depth;        // rows of E: `in` padded to whole tiles
  int64_t errors;       // E, [strips][depth][kTileCols]
  int64_t block;        // the block's weights, [strips][kSolveBlock][kTileCols]
  int64_t factor;       // a packed [kSolveBlock, kSolveBlock] piece of R
  int64_t scales;       // [strips][groups][kTileCols]
  int64_t zeros;        // same
  int64_t loss;         // [strips][kTileCols]
  int64_t reciprocals;  // 1 / R[k, k] of the block; 0 where padded
  int64_t codes;        // the block's codes, int8 [strips][kSolveBlock][kTileCols]
  int64_t total;

  Layout(int64_t rows, int64_t in, int64_t groups)
      : strips(RoundUp(rows, kTileCols) / kTileCols), depth(RoundUp(in, kTileRows)) {
    int64_t used = 0;
    const auto take = [&used](int64_t floats) {
      const int64_t at = used;
      used += RoundUp(floats, 16);
      return at;
    };
    errors = take(strips * depth * kTileCols);
    block = take(strips * kSolveBlock * kTileCols);
    factor = take(kSolveBlock / kTileRows * PackedStride(kSolveBlock));
    scales = take(strips * groups * kTileCols);
    zeros = take(strips * groups * kTileCols);
    loss = take(strips * kTileCols);
    reciprocals = take(kSolveBlock);
    codes = take(strips * kSolveBlock * kTileCols / 4);
    total = used;
  }
};

template <typename Codes>
class TileSolver {
 public:
  TileSolver(const GptqTile& tile, const Codes& kind)
      : t_(tile),
        kind_(kind),
        at_(tile.rows, tile.in, tile.groups),
        codes_(CodesOf(tile.scratch + at_.codes)) {}

  void Solve() {
    LoadGrid();
    std::memset(t_.scratch + at_.loss, 0, Bytes(at_.strips * kTileCols));
    for (int64_t begin = 0; begin < t_.in; begin += kSolveBlock) {
      const int64_t count = Least(kSolveBlock, t_.in - begin);
      LoadWeights(begin, count);
      for (int64_t done = 0; done < begin; done += kSolveBlock) SubtractDone(done, begin, count);
      SolveBlock(begin, count);
      StoreBlock(begin, count);
    }
    const float* loss = t_.scratch + at_.loss;
    for (int64_t r = 0; r < t_.rows; ++r) t_.loss[r] = loss[r];  // strips lie one after another
  }

 private:
  static size_t Bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }
  static int8_t* CodesOf(float* p) { return reinterpret_cast<int8_t*>(p); }
  float* Errors(int64_t strip, int64_t k) const {
    return t_.scratch + at_.errors + (strip * at_.depth + k) * kTileCols;
  }
  float* Block(int64_t strip, int64_t k) const {
    return t_.scratch + at_.block + (strip * kSolveBlock + k) * kTileCols;
  }
  int64_t RowsOf(int64_t strip) const { return Least(kTileCols, t_.rows - strip * kTileCols); }

  // Scales and zero points with rows in the lanes; missing rows get scale 1.
  void LoadGrid() {
    for (int64_t s = 0; s < at_.strips; ++s) {
      for (int64_t g = 0; g < t_.groups; ++g) {
        float* scales = t_.scratch + at_.scales + (s * t_.groups + g) * kTileCols;
        float* zeros = t_.scratch + at_.zeros + (s * t_.groups + g) * kTileCols;
        for (int64_t c = 0; c < kTileCols; ++c) {
          const int64_t r = s * kTileCols + c;
          scales[c] = r < t_.rows ? t_.scales[r * t_.scales_stride + g] : 1.0f;
          zeros[c] = r < t_.rows && t_.zeros != nullptr
                         ? static_cast<float>(t_.zeros[r * t_.zeros_stride + g])
                         : 0.0f;
        }
      }
    }
  }

  // Columns order[begin, begin + count) of the weight, transposed; missing rows and columns are 0.
  void LoadWeights(int64_t begin, int64_t count) {
    const int32_t* order = t_.order + begin;
    for (int64_t s = 0; s < at_.strips; ++s) {
      float* block = Block(s, 0);
      const int64_t rows = RowsOf(s);
      if (rows < kTileCols) std::memset(block, 0, Bytes(kSolveBlock * kTileCols));
      for (int64_t r = 0; r < rows; ++r) {
        const float* weight = t_.weight + (s * kTileCols + r) * t_.weight_stride;
        for (int64_t k = 0; k < count; ++k) block[k * kTileCols + r] = weight[order[k]];
      }
      const int64_t padded = RoundUp(count, kTileRows);
      std::memset(block + count * kTileCols, 0, Bytes((padded - count) * kTileCols));
    }
  }

  // block -= E[done, done + kSolveBlock) R[those, block].
  void SubtractDone(int64_t done, int64_t begin, int64_t count) {
    float* factor = t_.scratch + at_.factor;
    PackColumns(t_.factor + done * t_.factor_stride + begin, t_.factor_stride, kSolveBlock, count,
                factor);
    for (int64_t s = 0; s < at_.strips; ++s) {
      for (int64_t k = 0; k < count; k += kTileRows) {
        SubtractProduct<false>(factor + k / kTileRows * PackedStride(kSolveBlock), kTileRows,
                               Errors(s, done), kTileCols, kSolveBlock, Block(s, k), kTileCols);
      }
    }
  }

  void SolveBlock(int64_t begin, int64_t count) {
    float* factor = t_.scratch + at_.factor;
    float* reciprocals = t_.scratch + at_.reciprocals;
    const float* diagonal = t_.factor + begin * t_.factor_stride + begin;
    PackColumns(diagonal, t_.factor_stride, count, count, factor);
    // Rows of R behind the last column meet errors of 0, and have to be finite.
    const int64_t padded = RoundUp(count, kTileRows);
    float* last = factor + (padded / kTileRows - 1) * PackedStride(count);
    std::memset(last + count * kTileRows, 0, Bytes((padded - count) * kTileRows));
    for (int64_t k = 0; k < padded; ++k) {
      reciprocals[k] = k < count ? 1.0f / diagonal[k * (t_.factor_stride + 1)] : 0.0f;
    }
    for (int64_t s = 0; s < at_.strips; ++s) {
      Tile loss = {};  // of this block alone, so that the sum's error grows with its square root
      for (int64_t k = 0; k < count; k += kTileRows) {
        const float* columns = factor + k / kTileRows * PackedStride(count);  // [count][kTileRows]
        SubtractProduct<false>(columns, kTileRows, Errors(s, begin), kTileCols, k, Block(s, k),
                               kTileCols);
        SolveColumns(s, begin, k, count, columns + k * kTileRows, loss);
      }
      float* total = t_.scratch + at_.loss + s * kTileCols;
      for (int64_t v = 0; v < kTileVecs; ++v) {
        Store(total + v * kLanes, Load(total + v * kLanes) + loss.v[0][v]);
      }
    }
  }

  // kTileRows columns, from k on in the block, held in registers. r: [kTileRows][kTileRows], their
  // own square of R. Columns past `count` have weight, error and loss 0.
  void SolveColumns(int64_t strip, int64_t begin, int64_t k, int64_t count, const float* r,
                    Tile& loss) {
    const float* reciprocals = t_.scratch + at_.reciprocals + k;
    Tile w;
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      w.v[i][0] = Load(Block(strip, k + i));
      w.v[i][1] = Load(Block(strip, k + i) + kLanes);
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      const int64_t column = k + i < count ? begin + k + i : begin;
      const int64_t grid = (strip * t_.groups + t_.group_of[column]) * kTileCols;
      const float* scales = t_.scratch + at_.scales + grid;
      const float* zeros = t_.scratch + at_.zeros + grid;
      int8_t* codes = codes_ + (strip * kSolveBlock + k + i) * kTileCols;
      float* errors = Errors(strip, begin + k + i);
#pragma GCC unroll 2
      for (int64_t v = 0; v < kTileVecs; ++v) {
        const Vec scale = Load(scales + v * kLanes);
        const Vec zero = Load(zeros + v * kLanes);
        const Rounded rounded = kind_.Round(w.v[i][v], scale, zero);
        StoreCodes(codes + v * kLanes, rounded.code);
        // q rounds as Dequantize does; e is 0 in padded columns, whose reciprocal is 0.
        const Vec e = (w.v[i][v] - rounded.number * scale) * Broadcast(reciprocals[i]);
        Store(errors + v * kLanes, e);
        loss.v[0][v] = Fma(e, e, loss.v[0][v]);
#pragma GCC unroll 8
        for (int64_t j = i + 1; j < kTileRows; ++j) {
          w.v[j][v] = Fnma(Broadcast(r[i * kTileRows + j]), e, w.v[j][v]);
        }
      }
    }
  }

  void StoreBlock(int64_t begin, int64_t count) {
    const int32_t* order = t_.order + begin;
    for (int64_t r = 0; r < t_.rows; ++r) {
      int8_t* row = t_.codes + r * t_.codes_stride;
      const int8_t* codes = codes_ + r / kTileCols * kSolveBlock * kTileCols + r % kTileCols;
      for (int64_t k = 0; k < count; ++k) row[order[k]] = codes[k * kTileCols];
    }
  }

  const GptqTile& t_;
  const Codes kind_;
  const Layout at_;
  int8_t* const codes_;
};

void SolveTile(const GptqTile& tile) {
  WithCodes(tile.range, [&](const auto& kind) { TileSolver(tile, kind).Solve(); });
}

int64_t Scratch(int64_t rows, int64_t in, int64_t groups) { return Layout(rows, in, groups).total; }

}  // namespace

const GptqKernels kGptqKernels = {&SolveTile, &Scratch};

}  // namespace quantmill::cpu::QUANTMILL_ISA
