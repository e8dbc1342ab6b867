// Speed of packing, unpacking and transposing codes, as convert does by bands of rows.
//
//   bench_repack [out in]     default 14336 x 4096
//
// GB of packed words for each second of one thread's CPU time, which other programs on the machine
// disturb less than wall clock; the best of several runs, and its share of the speed of memcpy of
// the same words, which reads and writes each once.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <vector>

#include "formats/bitstream.h"
#include "tests/support/random.h"

namespace quantmill {
namespace {

constexpr int64_t kBand = 128;  // rows

class Bench {
 public:
  Bench(int64_t out, int64_t in, int bits)
      : out_(out / kBand * kBand),
        in_(in),
        bits_(bits),
        row_bytes_(static_cast<size_t>(WordsPerRow(in, bits) * kWordBytes)),
        column_bytes_(static_cast<size_t>(out_ * kWordBytes)),
        words_(static_cast<size_t>(out_) * row_bytes_),
        columns_(words_.size()),
        codes_(static_cast<size_t>(kBand * in)) {
    test::Random random(1);
    for (int8_t& code : codes_) {
      code = static_cast<int8_t>(random.Int(-(1 << (bits - 1)), (1 << (bits - 1)) - 1));
    }
  }

  void Run() {
    std::printf("%lld x %lld, %d bits\n", static_cast<long long>(out_), static_cast<long long>(in_),
                bits_);
    const auto rows = [&](int64_t r) {
      return words_.data() + static_cast<size_t>(r) * row_bytes_;
    };
    const auto column = [&](int64_t r) { return columns_.data() + r * kWordBytes; };
    const size_t band_bytes = kBand * row_bytes_;
    const int64_t row_words = WordsPerRow(in_, bits_);
    copy_ = Speed([&](int64_t r) {
      std::memcpy(columns_.data() + (rows(r) - words_.data()), rows(r), band_bytes);
    });
    Print("memcpy", copy_);
    Print("PackCodes", Speed([&](int64_t r) {
            PackCodes(codes_, kBand, in_, bits_, {rows(r), band_bytes});
          }));
    Print("UnpackCodes", Speed([&](int64_t r) {
            UnpackCodes({rows(r), band_bytes}, kBand, in_, bits_, codes_);
          }));
    Print("PackColumns", Speed([&](int64_t r) {
            PackColumns(codes_, kBand, in_, bits_, column(r), column_bytes_);
          }));
    Print("UnpackColumns", Speed([&](int64_t r) {
            UnpackColumns(column(r), column_bytes_, kBand, in_, bits_, codes_);
          }));
    Print("TransposeWords to columns", Speed([&](int64_t r) {
            TransposeWords(rows(r), row_bytes_, kBand, row_words, column(r), column_bytes_);
          }));
    Print("TransposeWords to rows", Speed([&](int64_t r) {
            TransposeWords(column(r), column_bytes_, row_words, kBand, rows(r), row_bytes_);
          }));
  }

 private:
  // `band` is called with the first row of each.
  double Speed(const std::function<void(int64_t)>& band) const {
    constexpr int kRuns = 7;
    double best = 0;
    for (int run = 0; run < kRuns; ++run) {
      const std::clock_t begin = std::clock();
      for (int64_t r = 0; r < out_; r += kBand) band(r);
      const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
      best = std::max(best, static_cast<double>(words_.size()) / seconds);
    }
    return best;
  }

  void Print(const char* name, double speed) const {
    std::printf("  %-26s %6.2f GB/s  %3.0f %%\n", name, speed / 1e9, 100 * speed / copy_);
  }

  int64_t out_;
  int64_t in_;
  int bits_;
  size_t row_bytes_;
  size_t column_bytes_;
  std::vector<std::byte> words_;
  std::vector<std::byte> columns_;
  std::vector<int8_t> codes_;
  double copy_ = 1;
};

}  // namespace
}  // namespace quantmill

int main(int argc, char** argv) {
  const int64_t out = argc > 2 ? std::atoll(argv[1]) : 14336;
  const int64_t in = argc > 2 ? std::atoll(argv[2]) : 4096;
  for (const int bits : {2, 3, 4, 8}) quantmill::Bench(out, in, bits).Run();
}
