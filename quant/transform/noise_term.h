// One product of the expected error (expected_error.h): the squared steps of some lines times the
// weight of their errors, and what it would be after a change of one scale.
#ifndef QUANTMILL_QUANT_TRANSFORM_NOISE_TERM_H_
#define QUANTMILL_QUANT_TRANSFORM_NOISE_TERM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quantmill {

// value = factor * A * B over members j with scales t_j:
//   A = sum over lines (max_j high[j, line] t_j + max_j low[j, line] t_j)^2
//   B = sum_j importance_j / t_j^2
class NoiseTerm {
 public:
  // `inverse`: t_j = 1 / s_j instead of s_j (rounded inputs).
  NoiseTerm(double factor, bool inverse, int64_t lines)
      : factor_(factor), inverse_(inverse), lines_(lines) {}

  // Magnitudes >= 0, [lines]; `low` empty: equal to high. `scale`: the element of s. All members of
  // one term are of one kind and have scales of their own.
  void AddMember(int32_t scale, std::vector<float> high, std::vector<float> low, double importance);
  // The member of that scale, or -1.
  int64_t MemberOf(int32_t scale) const;
  // A second column under an existing member's scale.
  void Widen(int64_t member, const std::vector<float>& high, const std::vector<float>& low,
             double importance);
  int64_t members() const { return static_cast<int64_t>(scale_.size()); }
  int32_t scale_of(int64_t member) const { return scale_[static_cast<size_t>(member)]; }

  // The value for these scales (the whole s).
  double ValueAt(const std::vector<float>& scales) const;

  // ---- for a descent ----
  // Sets all scales. Before the calls below.
  void SetScales(const std::vector<float>& scales);
  double value() const { return factor_ * spread_ * noise_; }
  // value() if s of the member were multiplied by `ratio`.
  double ValueWith(int64_t member, float ratio) const;
  void Multiply(int64_t member, float ratio);

 private:
  // The largest and second largest of high (or low) over the members, line by line.
  struct Maxima {
    std::vector<float> first, second;
    std::vector<int32_t> first_member, second_member;
  };

  float Factor(float ratio) const { return inverse_ ? 1 / ratio : ratio; }
  bool one_sided() const { return low_.empty(); }
  void FindMaxima(const std::vector<std::vector<float>>& values, int64_t line,
                  Maxima& maxima) const;
  void UpdateMaxima(const std::vector<std::vector<float>>& values, int64_t member,
                    Maxima& maxima) const;
  void Resum();

  double factor_;
  bool inverse_;
  int64_t lines_;
  std::vector<int32_t> scale_;
  std::vector<std::vector<float>> high_, low_;  // [members][lines]
  std::vector<double> importance_;
  std::vector<float> t_;
  Maxima high_maxima_, low_maxima_;
  double spread_ = 0;
  double noise_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_NOISE_TERM_H_
