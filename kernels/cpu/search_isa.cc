// SearchGrid of one strip of rows and one group; compiled once per instruction set (isa.h).
//
// Rows lie in the lanes, kTileCols to a strip. A candidate is one scale per lane; its error is
// summed over the blocks of the group with the tiles of tile_gemm.h, the lower triangle counted
// twice.
#include "kernels/cpu/code_kinds.h"
#include "kernels/cpu/search_kernels.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

// sum of d_i B_ij d_j over one block of n columns; d: [n, kTileCols]; b: its first row.
void AddForm(const float* b, int64_t stride, int64_t n, const float* d, Vec (&sum)[kTileVecs]) {
  int64_t i = 0;
  for (; i + kTileRows <= n; i += kTileRows) {
    const float* rows = b + i * stride;
    const Tile left = TileProduct<true>(rows, stride, d, kTileCols, i);
    const Tile own = TileProduct<true>(rows + i, stride, d + i * kTileCols, kTileCols, kTileRows);
    for (int64_t r = 0; r < kTileRows; ++r) {
      for (int64_t v = 0; v < kTileVecs; ++v) {
        const Vec twice = left.v[r][v] + left.v[r][v] + own.v[r][v];
        sum[v] = Fma(Load(d + (i + r) * kTileCols + v * kLanes), twice, sum[v]);
      }
    }
  }
  for (; i < n; ++i) {
    for (int64_t v = 0; v < kTileVecs; ++v) {
      const Vec own = Load(d + i * kTileCols + v * kLanes);
      Vec y = own * Broadcast(b[i * stride + i] * 0.5f);
      for (int64_t j = 0; j < i; ++j) {
        y = Fma(Broadcast(b[i * stride + j]), Load(d + j * kTileCols + v * kLanes), y);
      }
      sum[v] = Fma(own + own, y, sum[v]);
    }
  }
}

// One scale, zero point, ... per lane.
struct Lanes {
  float x[kTileCols];
};

template <typename Codes>
class GroupSearch {
 public:
  GroupSearch(const SearchTile& tile, const Codes& kind)
      : t_(tile),
        kind_(kind),
        weight_(tile.scratch),
        delta_(tile.scratch + tile.width * kTileCols) {}

  void Run() {
    LoadStart();
    for (int64_t i = 0; i < t_.coarse_count; ++i) {
      TryFactor(t_.coarse[i], 1);
      if (t_.mirror) TryFactor(t_.coarse[i], -1);
    }
    TryZeroPoints();
    for (int64_t i = 0; i < t_.fine_count; ++i) TryOffset(t_.fine[i]);
    TryZeroPoints();
    StoreBest();
  }

 private:
  void LoadStart() {
    if (t_.rows < kTileCols) {
      std::memset(weight_, 0, static_cast<size_t>(t_.width * kTileCols) * sizeof(float));
    }
    Transpose(t_.weight, t_.weight_stride, t_.rows, t_.width, weight_, kTileCols);
    for (int64_t c = 0; c < kTileCols; ++c) {
      const bool row = c < t_.rows;
      start_.x[c] = row ? t_.scales[c * t_.grid_stride] : 1.0f;
      zero_.x[c] =
          row && t_.zeros != nullptr ? static_cast<float>(t_.zeros[c * t_.zeros_stride]) : 0.0f;
      factor_.x[c] = 1;
      sign_.x[c] = 1;
    }
    scale_ = start_;
    error_ = ErrorOf(scale_, zero_);
  }

  Lanes ErrorOf(const Lanes& scale, const Lanes& zero) const {
    Vec scales[kTileVecs], inverses[kTileVecs], zeros[kTileVecs];
    for (int64_t v = 0; v < kTileVecs; ++v) {
      scales[v] = Load(scale.x + v * kLanes);
      inverses[v] = Broadcast(1.0f) / scales[v];
      zeros[v] = Load(zero.x + v * kLanes);
    }
    for (int64_t i = 0; i < t_.width; ++i) {
      for (int64_t v = 0; v < kTileVecs; ++v) {
        const Vec w = Load(weight_ + i * kTileCols + v * kLanes);
        // Multiplying by the inverse may choose the other code at a tie: as good.
        const Vec number = kind_.Nearest(w * inverses[v], zeros[v]);
        Store(delta_ + i * kTileCols + v * kLanes, number * scales[v] - w);
      }
    }
    Vec sum[kTileVecs] = {};
    for (int64_t b = 0; b < t_.width; b += t_.block) {
      AddForm(t_.blocks + b * t_.blocks_stride, t_.blocks_stride, Least(t_.block, t_.width - b),
              delta_ + b * kTileCols, sum);
    }
    Lanes error;
    for (int64_t v = 0; v < kTileVecs; ++v) Store(error.x + v * kLanes, sum[v]);
    return error;
  }

  // Lane by lane; what cannot be stored keeps the best so far, which is no better than itself.
  void Try(const Lanes& factor, const Lanes& sign, const Lanes& zero) {
    Lanes scale;
    Lanes tried = zero;
    for (int64_t c = 0; c < kTileCols; ++c) {
      const float stored = t_.round_scale(t_.rounding, start_.x[c] * factor.x[c]);
      const bool usable = factor.x[c] > 0 && stored > 0 && stored < 3e38f;
      scale.x[c] = usable ? stored * sign.x[c] : scale_.x[c];
      if (!usable) tried.x[c] = zero_.x[c];
    }
    const Lanes error = ErrorOf(scale, tried);
    for (int64_t c = 0; c < kTileCols; ++c) {
      if (!(error.x[c] < error_.x[c])) continue;
      error_.x[c] = error.x[c];
      scale_.x[c] = scale.x[c];
      zero_.x[c] = tried.x[c];
      factor_.x[c] = factor.x[c];
      sign_.x[c] = sign.x[c];
    }
  }
  void TryFactor(float factor, float sign) {
    Lanes factors, signs;
    for (int64_t c = 0; c < kTileCols; ++c) {
      factors.x[c] = factor;
      signs.x[c] = sign;
    }
    Try(factors, signs, zero_);
  }
  void TryOffset(float offset) {
    Lanes factors = factor_;
    for (float& factor : factors.x) factor += offset;
    Try(factors, sign_, zero_);
  }
  void TryZeroPoints() {
    if (t_.zeros == nullptr) return;
    for (const float step : {-1.0f, 1.0f}) {
      Lanes zero = zero_;
      for (float& z : zero.x) {
        const float moved = z + step;
        z = moved < t_.range.min_code   ? t_.range.min_code
            : moved > t_.range.max_code ? t_.range.max_code
                                        : moved;
      }
      Try(factor_, sign_, zero);
    }
  }

  void StoreBest() {
    for (int64_t c = 0; c < t_.rows; ++c) {
      t_.scales[c * t_.grid_stride] = scale_.x[c];
      if (t_.zeros != nullptr) t_.zeros[c * t_.zeros_stride] = static_cast<int8_t>(zero_.x[c]);
    }
  }

  const SearchTile& t_;
  const Codes kind_;
  float* const weight_;  // [width, kTileCols]
  float* const delta_;   // same
  Lanes start_;          // the start grid's scales
  // The best candidate so far.
  Lanes scale_, zero_, factor_, sign_, error_;
};

void Search(const SearchTile& tile) {
  WithCodes(tile.range, [&](const auto& kind) { GroupSearch(tile, kind).Run(); });
}

int64_t Scratch(int64_t width) { return 2 * width * kTileCols; }

}  // namespace

const SearchKernels kSearchKernels = {kTileCols, &Search, &Scratch};

}  // namespace quantmill::cpu::QUANTMILL_ISA
