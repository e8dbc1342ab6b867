// Orthogonal matrices with entries of one size: they spread one large value over all.
#ifndef QUANTMILL_QUANT_MODEL_HADAMARD_H_
#define QUANTMILL_QUANT_MODEL_HADAMARD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace quantmill {

// R = D H / sqrt(n): D random signs, H a Hadamard matrix (entries 1 and -1, H Ht = n I). H is a
// Kronecker product of [[1, 1], [1, -1]] and of Paley's matrices of order 4k (Paley, "On orthogonal
// matrices", 1933), which exist for q + 1, q = 3 mod 4, and 2 (q + 1), q = 1 mod 4, q prime: so
// sizes such as 576 = 12 * 12 * 4 and 5120 = 20 * 256 have one.
class Hadamard {
 public:
  // The largest of Paley's matrices that is used; a vector costs that many additions an element.
  static constexpr int64_t kLargestOrder = 256;

  // Nothing where n is no product of the orders above. Deterministic for n and seed.
  static std::optional<Hadamard> OfSize(int64_t n, uint64_t seed);

  int64_t size() const { return static_cast<int64_t>(signs_.size()); }
  // "12 x 12 x 2 x 2"
  std::string factors() const;

  // x := x R, for `lanes` row vectors at once: element i of vector l is x[i * lanes + l]. In
  // double, additions in a fixed order. `scratch` is memory between calls, resized as needed.
  void Apply(double* x, int64_t lanes, std::vector<double>& scratch) const;

 private:
  struct Factor {
    int64_t order;
    std::vector<int8_t> entries;  // [order, order], row-major; empty for order 2
  };

  std::vector<Factor> factors_;
  std::vector<int8_t> signs_;  // the diagonal of D
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_HADAMARD_H_
