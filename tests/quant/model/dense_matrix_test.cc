#include "quant/model/dense_matrix.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace quantmill {
namespace {

// Sizes beside the tile's 32; every element has a value of its own, exact in F16.
TEST(DenseMatrix, TransposesEveryElementOfEveryType) {
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {31, 33}, {64, 5}}) {
      const Tensor matrix = HostTensor(dtype, rows, cols);
      for (int64_t i = 0; i < rows * cols; ++i) {
        if (dtype == DType::kF32) {
          matrix.Row<float>(i / cols)[i % cols] = static_cast<float>(i);
        } else {
          matrix.Row<F16>(i / cols)[i % cols] = ToF16(static_cast<float>(i));
        }
      }
      const DenseMatrix transposed(matrix, true);
      ASSERT_EQ(transposed.view().rows, cols);
      ASSERT_EQ(transposed.view().cols, rows);
      ASSERT_EQ(transposed.view().dtype, dtype);
      std::vector<float> row(static_cast<size_t>(rows));
      for (int64_t c = 0; c < cols; ++c) {
        WidenRow(transposed, c, row.data());
        for (int64_t r = 0; r < rows; ++r) {
          ASSERT_EQ(row[static_cast<size_t>(r)], static_cast<float>(r * cols + c));
        }
      }
      EXPECT_EQ(DenseMatrix(matrix, false).view().data, ConstMatrix(matrix).data) << "no copy";
    }
  }
}

}  // namespace
}  // namespace quantmill
