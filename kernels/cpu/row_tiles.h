// TileArgs (matmul_kernels.h) run with the tiles of dot_tile.h. Only for *_isa.cc sources (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_ROW_TILES_H_
#define QUANTMILL_KERNELS_CPU_ROW_TILES_H_

#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/matmul_kernels.h"

namespace quantmill::cpu::QUANTMILL_ISA {

template <typename Step, int kRows>
void TileOf(const TileArgs& a) {
  RunTile<Step, kRows, kTileVectors, 1>(static_cast<const float*>(a.x), a.x_row,
                                        static_cast<const float*>(a.w), a.steps, a.resume,
                                        static_cast<const char*>(a.ahead), a.sums);
}

// Up to kTileRows rows.
template <typename Step>
void SmallTile(const TileArgs& args) {
  static_assert(kTileRows == 6);
  switch (args.rows) {
    case 1:
      return TileOf<Step, 1>(args);
    case 2:
      return TileOf<Step, 2>(args);
    case 3:
      return TileOf<Step, 3>(args);
    case 4:
      return TileOf<Step, 4>(args);
    case 5:
      return TileOf<Step, 5>(args);
    default:
      return TileOf<Step, 6>(args);
  }
}

// Any number of rows.
template <typename Step>
void Tile(const TileArgs& args) {
  for (int r = 0; r < args.rows; r += kTileRows) {
    TileArgs part = args;
    part.rows = args.rows - r < kTileRows ? args.rows - r : kTileRows;
    part.x = static_cast<const float*>(args.x) + r * args.x_row;
    part.sums = args.sums + r * kTileCols;
    SmallTile<Step>(part);
  }
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_ROW_TILES_H_
