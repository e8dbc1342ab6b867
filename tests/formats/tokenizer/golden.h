// Files of tests/formats/tokenizer/golden (made by make_golden.py).
#ifndef QUANTMILL_TESTS_FORMATS_TOKENIZER_GOLDEN_H_
#define QUANTMILL_TESTS_FORMATS_TOKENIZER_GOLDEN_H_

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>

#include "formats/json.h"

namespace quantmill {

// Whole content of a file. Throws std::runtime_error.
inline std::string ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  if (!in) throw std::runtime_error("cannot read " + path);
  return out.str();
}

// Tests run in the repository root.
inline std::string GoldenPath(const std::string& name) {
  return "tests/formats/tokenizer/golden/" + name;
}

inline nlohmann::json ReadGolden(const std::string& name) { return ReadJsonFile(GoldenPath(name)); }

}  // namespace quantmill

#endif  // QUANTMILL_TESTS_FORMATS_TOKENIZER_GOLDEN_H_
