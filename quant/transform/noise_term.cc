#include "quant/transform/noise_term.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Independent partial sums in a fixed order: the compiler can use vector registers.
constexpr int64_t kLanes = 16;

// sum over lines of step(line)^2.
template <typename Step>
double SumOfSquares(int64_t lines, const Step& step) {
  std::array<float, kLanes> sums{};
  const int64_t whole = lines - lines % kLanes;
  for (int64_t line = 0; line < whole; line += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float x = step(line + lane);
      sums[static_cast<size_t>(lane)] += x * x;
    }
  }
  for (int64_t line = whole; line < lines; ++line) {
    const float x = step(line);
    sums[static_cast<size_t>(line - whole)] += x * x;
  }
  double total = 0;
  for (const float x : sums) total += static_cast<double>(x);
  return total;
}

double Square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

}  // namespace

void NoiseTerm::AddMember(int32_t scale, std::vector<float> high, std::vector<float> low,
                          double importance) {
  Check(static_cast<int64_t>(high.size()) == lines_, "NoiseTerm: a member has a value a line");
  scale_.push_back(scale);
  high_.push_back(std::move(high));
  if (!low.empty()) low_.push_back(std::move(low));
  importance_.push_back(importance);
}

int64_t NoiseTerm::MemberOf(int32_t scale) const {
  const auto found = std::find(scale_.begin(), scale_.end(), scale);
  return found == scale_.end() ? -1 : std::distance(scale_.begin(), found);
}

void NoiseTerm::Widen(int64_t member, const std::vector<float>& high, const std::vector<float>& low,
                      double importance) {
  const auto at = static_cast<size_t>(member);
  for (size_t line = 0; line < high.size(); ++line) {
    high_[at][line] = std::max(high_[at][line], high[line]);
    if (!one_sided()) low_[at][line] = std::max(low_[at][line], low[line]);
  }
  importance_[at] += importance;
}

double NoiseTerm::ValueAt(const std::vector<float>& scales) const {
  const auto lines = static_cast<size_t>(lines_);
  std::vector<float> high(lines);
  std::vector<float> low(one_sided() ? 0 : lines);
  double noise = 0;
  const auto raise = [&](const std::vector<float>& values, float t, std::vector<float>& maxima) {
    for (size_t line = 0; line < lines; ++line) {
      maxima[line] = std::max(maxima[line], values[line] * t);
    }
  };
  for (size_t j = 0; j < scale_.size(); ++j) {
    const float t = Factor(scales[static_cast<size_t>(scale_[j])]);
    raise(high_[j], t, high);
    if (!one_sided()) raise(low_[j], t, low);
    noise += importance_[j] / Square(t);
  }
  const float* other = one_sided() ? high.data() : low.data();
  const double spread = SumOfSquares(
      lines_, [&](int64_t line) { return high[static_cast<size_t>(line)] + other[line]; });
  return factor_ * spread * noise;
}

void NoiseTerm::SetScales(const std::vector<float>& scales) {
  t_.clear();
  for (const int32_t scale : scale_) t_.push_back(Factor(scales[static_cast<size_t>(scale)]));
  const auto lines = static_cast<size_t>(lines_);
  for (Maxima* maxima : {&high_maxima_, &low_maxima_}) {
    maxima->first.assign(lines, 0);
    maxima->second.assign(lines, 0);
    maxima->first_member.assign(lines, -1);
    maxima->second_member.assign(lines, -1);
  }
  // Member by member: `high_` is read in the order in which it lies.
  for (int64_t member = 0; member < members(); ++member) {
    UpdateMaxima(high_, member, high_maxima_);
    if (!one_sided()) UpdateMaxima(low_, member, low_maxima_);
  }
  Resum();
}

void NoiseTerm::Resum() {
  const float* high = high_maxima_.first.data();
  const float* low = one_sided() ? high : low_maxima_.first.data();
  spread_ = SumOfSquares(lines_, [&](int64_t line) { return high[line] + low[line]; });
  noise_ = 0;
  for (size_t j = 0; j < t_.size(); ++j) noise_ += importance_[j] / Square(t_[j]);
}

double NoiseTerm::ValueWith(int64_t member, float ratio) const {
  const auto at = static_cast<size_t>(member);
  const float t = t_[at] * Factor(ratio);
  const auto id = static_cast<int32_t>(member);
  // The largest of the others, or the member's own.
  const auto largest = [&](const std::vector<std::vector<float>>& values, const Maxima& maxima) {
    return [own = values[at].data(), t, id, first = maxima.first.data(),
            second = maxima.second.data(), holder = maxima.first_member.data()](int64_t line) {
      const float others = holder[line] == id ? second[line] : first[line];
      return std::max(others, own[line] * t);
    };
  };
  const auto high = largest(high_, high_maxima_);
  double spread = 0;
  if (one_sided()) {
    spread = 4 * SumOfSquares(lines_, high);
  } else {
    const auto low = largest(low_, low_maxima_);
    spread = SumOfSquares(lines_, [&](int64_t line) { return high(line) + low(line); });
  }
  const double noise = noise_ + importance_[at] * (1 / Square(t) - 1 / Square(t_[at]));
  return factor_ * spread * noise;
}

void NoiseTerm::FindMaxima(const std::vector<std::vector<float>>& values, int64_t line,
                           Maxima& maxima) const {
  const auto at = static_cast<size_t>(line);
  float first = 0, second = 0;
  int32_t first_member = -1, second_member = -1;
  for (size_t j = 0; j < values.size(); ++j) {
    const float value = values[j][at] * t_[j];
    if (value > first) {
      second = std::exchange(first, value);
      second_member = std::exchange(first_member, static_cast<int32_t>(j));
    } else if (value > second) {
      second = value;
      second_member = static_cast<int32_t>(j);
    }
  }
  maxima.first[at] = first;
  maxima.second[at] = second;
  maxima.first_member[at] = first_member;
  maxima.second_member[at] = second_member;
}

void NoiseTerm::UpdateMaxima(const std::vector<std::vector<float>>& values, int64_t member,
                             Maxima& maxima) const {
  const auto id = static_cast<int32_t>(member);
  const float t = t_[static_cast<size_t>(member)];
  const std::vector<float>& own = values[static_cast<size_t>(member)];
  for (size_t line = 0; line < own.size(); ++line) {
    const float value = own[line] * t;
    float& first = maxima.first[line];
    float& second = maxima.second[line];
    if (maxima.first_member[line] == id) {
      if (value >= second) {
        first = value;
      } else {
        FindMaxima(values, static_cast<int64_t>(line), maxima);
      }
    } else if (maxima.second_member[line] == id && value < second) {
      FindMaxima(values, static_cast<int64_t>(line), maxima);
    } else if (value > first) {
      // The old first becomes second; if `id` was second, it leaves that place.
      second = std::exchange(first, value);
      maxima.second_member[line] = std::exchange(maxima.first_member[line], id);
    } else if (value > second) {
      second = value;
      maxima.second_member[line] = id;
    }
  }
}

void NoiseTerm::Multiply(int64_t member, float ratio) {
  t_[static_cast<size_t>(member)] *= Factor(ratio);
  UpdateMaxima(high_, member, high_maxima_);
  if (!one_sided()) UpdateMaxima(low_, member, low_maxima_);
  Resum();
}

}  // namespace quantmill
