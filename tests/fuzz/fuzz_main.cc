// Runs a fuzz target without libFuzzer.
//   TARGET FILE...      each file once (to repeat a finding)
//   TARGET --runs=N     N mutations of the target's seeds; the same ones every time
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Valid inputs to start from; each target defines its own.
std::vector<std::string> FuzzSeeds();

namespace {

uint64_t state = 1;
uint64_t Next() {  // SplitMix64
  state += 0x9E3779B97F4A7C15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Replaces, removes, doubles or inserts bytes, a few times.
std::string Mutate(std::string text) {
  static const std::string kTokens[] = {"{",    "}",
                                        "[",    "]",
                                        "\"",   ",",
                                        ":",    "null",
                                        "-1",   "1e9",
                                        "0.5",  "18446744073709551615",
                                        "\\",   "\\u0",
                                        " ",    "\xED\xA0\x80",
                                        "true", "9223372036854775808"};
  for (uint64_t edits = 1 + Next() % 4; edits > 0; --edits) {
    const size_t at = text.empty() ? 0 : Next() % text.size();
    const size_t length = text.empty() ? 0 : 1 + Next() % std::min<size_t>(16, text.size() - at);
    switch (Next() % 5) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(Next());
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(at, length));
        break;
      case 3:
        text.insert(at, kTokens[Next() % std::size(kTokens)]);
        break;
      default:
        text.resize(at);
    }
  }
  return text;
}

void Run(const std::string& text) {
  // A heap block of the exact size, so that a sanitizer sees a read past the end.
  const std::vector<uint8_t> copy(text.begin(), text.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (!argument.starts_with("--runs=")) {
      std::ifstream file(argument, std::ios::binary);
      Run({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
      continue;
    }
    const std::vector<std::string> seeds = FuzzSeeds();
    for (const std::string& seed : seeds) Run(seed);
    for (long runs = std::atol(argument.c_str() + 7); runs > 0; --runs) {
      Run(Mutate(seeds[Next() % seeds.size()]));
    }
  }
  std::puts("done");
}
