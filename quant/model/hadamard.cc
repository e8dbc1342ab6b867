#include "quant/model/hadamard.h"

#include <algorithm>
#include <cmath>

namespace quantmill {
namespace {

bool IsPrime(int64_t q) {
  if (q < 2) return false;
  for (int64_t d = 2; d * d <= q; ++d) {
    if (q % d == 0) return false;
  }
  return true;
}

// 1 for a nonzero square modulo the prime q, -1 for another residue, 0 for 0: for 0 .. q - 1.
std::vector<int8_t> QuadraticCharacter(int64_t q) {
  std::vector<int8_t> character(static_cast<size_t>(q), -1);
  character[0] = 0;
  for (int64_t a = 1; a < q; ++a) character[static_cast<size_t>(a * a % q)] = 1;
  return character;
}

// The matrix [[0, 1], [s, Q]] of order q + 1 with Q_ij = character(i - j): s is -1 (skew) for
// q = 3 mod 4 and 1 (symmetric) for q = 1 mod 4. Its rows are orthogonal, of squared length q.
std::vector<int8_t> Conference(int64_t q) {
  const std::vector<int8_t> character = QuadraticCharacter(q);
  const int64_t n = q + 1;
  std::vector<int8_t> matrix(static_cast<size_t>(n * n), 0);
  for (int64_t i = 1; i < n; ++i) {
    matrix[static_cast<size_t>(i)] = 1;
    matrix[static_cast<size_t>(i * n)] = q % 4 == 3 ? -1 : 1;
    for (int64_t j = 1; j < n; ++j) {
      matrix[static_cast<size_t>(i * n + j)] = character[static_cast<size_t>((i - j + q) % q)];
    }
  }
  return matrix;
}

// Paley I: I + C for the skew C of order q + 1.
std::vector<int8_t> PaleyOne(int64_t q) {
  std::vector<int8_t> matrix = Conference(q);
  for (int64_t i = 0; i <= q; ++i) matrix[static_cast<size_t>(i * (q + 1) + i)] = 1;
  return matrix;
}

// Paley II, order 2 (q + 1): each 0 of the symmetric C becomes [[1, -1], [-1, -1]], each other c
// becomes c [[1, 1], [1, -1]].
std::vector<int8_t> PaleyTwo(int64_t q) {
  const std::vector<int8_t> conference = Conference(q);
  const int64_t half = q + 1;
  const int64_t n = 2 * half;
  std::vector<int8_t> matrix(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < half; ++i) {
    for (int64_t j = 0; j < half; ++j) {
      const int8_t c = conference[static_cast<size_t>(i * half + j)];
      int8_t* top = &matrix[static_cast<size_t>(2 * i * n + 2 * j)];
      int8_t* bottom = top + n;
      top[0] = c == 0 ? int8_t{1} : c;
      top[1] = bottom[0] = c == 0 ? int8_t{-1} : c;
      bottom[1] = c == 0 ? int8_t{-1} : static_cast<int8_t>(-c);
    }
  }
  return matrix;
}

// Empty where there is none of this order.
std::vector<int8_t> Paley(int64_t order) {
  if (order % 4 == 0 && IsPrime(order - 1)) return PaleyOne(order - 1);
  const int64_t q = order / 2 - 1;
  if (order % 4 == 0 && q % 4 == 1 && IsPrime(q)) return PaleyTwo(q);
  return {};
}

bool IsPowerOfTwo(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

// Orders whose product is n, the smallest of Paley's first; empty where there are none.
std::vector<int64_t> Orders(int64_t n) {
  if (n < 1) return {};
  if (IsPowerOfTwo(n)) {
    std::vector<int64_t> twos;
    for (; n > 1; n /= 2) twos.push_back(2);
    return twos;
  }
  for (int64_t order = 12; order <= std::min(n, Hadamard::kLargestOrder); order += 4) {
    if (n % order != 0 || IsPowerOfTwo(order) || Paley(order).empty()) continue;
    std::vector<int64_t> rest = Orders(n / order);
    if (rest.empty() && n != order) continue;
    rest.insert(rest.begin(), order);
    return rest;
  }
  return {};
}

// SplitMix64 (Steele, Lea, Flood 2014): the i-th value of the stream of `seed`.
uint64_t SplitMix64(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// x := x [[1, 1], [1, -1]] for one pair of rows of `count` values.
void Butterfly(double* first, double* second, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const double sum = first[i] + second[i];
    second[i] = first[i] - second[i];
    first[i] = sum;
  }
}

// rows [order, count] := entries^T rows, through `scratch`.
void Mix(const std::vector<int8_t>& entries, int64_t order, double* rows, int64_t count,
         std::vector<double>& scratch) {
  scratch.assign(static_cast<size_t>(order * count), 0.0);
  for (int64_t k = 0; k < order; ++k) {
    const double* from = rows + k * count;
    for (int64_t j = 0; j < order; ++j) {
      const double sign = entries[static_cast<size_t>(k * order + j)];
      double* to = scratch.data() + j * count;
      for (int64_t i = 0; i < count; ++i) to[i] += sign * from[i];
    }
  }
  std::copy(scratch.begin(), scratch.end(), rows);
}

}  // namespace

std::optional<Hadamard> Hadamard::OfSize(int64_t n, uint64_t seed) {
  const std::vector<int64_t> orders = Orders(n);
  if (orders.empty() && n != 1) return std::nullopt;
  Hadamard hadamard;
  for (const int64_t order : orders) {
    hadamard.factors_.push_back({order, order == 2 ? std::vector<int8_t>() : Paley(order)});
  }
  for (int64_t i = 0; i < n; ++i) {
    const bool negative = (SplitMix64(seed, static_cast<uint64_t>(i)) >> 63) != 0;
    hadamard.signs_.push_back(negative ? int8_t{-1} : int8_t{1});
  }
  return hadamard;
}

std::string Hadamard::factors() const {
  std::string text;
  for (const Factor& factor : factors_) {
    text += (text.empty() ? "" : " x ") + std::to_string(factor.order);
  }
  return text;
}

void Hadamard::Apply(double* x, int64_t lanes, std::vector<double>& scratch) const {
  const double scale = 1 / std::sqrt(static_cast<double>(size()));
  for (int64_t i = 0; i < size(); ++i) {
    const double factor = scale * signs_[static_cast<size_t>(i)];
    for (int64_t l = 0; l < lanes; ++l) x[i * lanes + l] *= factor;
  }
  // Of a Kronecker product the first factor mixes what lies furthest apart.
  int64_t apart = size() * lanes;
  for (const Factor& factor : factors_) {
    const int64_t span = apart;
    apart /= factor.order;
    for (int64_t at = 0; at < size() * lanes; at += span) {
      if (factor.order == 2) {
        Butterfly(x + at, x + at + apart, apart);
      } else {
        Mix(factor.entries, factor.order, x + at, apart, scratch);
      }
    }
  }
}

}  // namespace quantmill
