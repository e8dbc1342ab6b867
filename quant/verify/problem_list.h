// The problems that a verification has found so far.
#ifndef QUANTMILL_QUANT_VERIFY_PROBLEM_LIST_H_
#define QUANTMILL_QUANT_VERIFY_PROBLEM_LIST_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "quant/report/results.h"

namespace quantmill {

// Problems by place: the first description of one place is kept, so that a damaged tensor is not
// told again by every check that meets it.
class ProblemList {
 public:
  void Add(const std::string& where, const std::string& what) {
    if (places_.insert(where).second) problems_.push_back({where, what});
  }
  void Add(const Error& error) { Add(error.where(), error.message()); }
  void Append(const std::vector<Problem>& problems) {
    for (const Problem& problem : problems) Add(problem.where, problem.what);
  }
  bool empty() const { return problems_.empty(); }
  std::vector<Problem> Take() { return std::move(problems_); }

 private:
  std::set<std::string> places_;
  std::vector<Problem> problems_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_PROBLEM_LIST_H_
