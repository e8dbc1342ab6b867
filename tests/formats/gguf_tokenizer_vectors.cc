// Helper of scripts/check_gguf_tokenizers, not a test.
//   gguf_tokenizer_vectors VOCABULARY INPUT IDS
// Tokenizes the texts of INPUT (each ends in "\n__ggml_vocab_test__\n") with the vocabulary of a
// GGUF file; line i of IDS holds the ids that text i must have. Exit code 1 if one differs, 3 if
// the vocabulary is refused.
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "formats/file.h"
#include "formats/gguf.h"
#include "formats/gguf/tokenizer_files.h"
#include "formats/json.h"
#include "formats/tokenizer/tokenizer.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";

std::vector<int32_t> IdsOf(const std::string& line) {
  std::istringstream numbers(line);
  std::vector<int32_t> ids;
  for (int32_t id = 0; numbers >> id;) ids.push_back(id);
  return ids;
}

int Compare(const std::string& vocabulary, const std::string& inputs, const std::string& outputs) {
  const GgufFile file = GgufFile::Open(vocabulary);
  const GgufTokenizer read = ReadGgufTokenizer(file.metadata(), "");
  const Tokenizer tokenizer = Tokenizer::FromJson(read.json.dump(), vocabulary);
  const std::string input = ReadTextFile(inputs, kMaxJsonBytes);
  std::istringstream lines(ReadTextFile(outputs, kMaxJsonBytes));
  int texts = 0;
  int wrong = 0;
  size_t begin = 0;
  for (size_t end = input.find(kSeparator); end != std::string::npos;
       end = input.find(kSeparator, begin)) {
    const std::string text = input.substr(begin, end - begin);
    begin = end + kSeparator.size();
    ++texts;
    std::string line;
    std::getline(lines, line);
    const std::vector<int32_t> ids = tokenizer.Encode(text, false);
    if (lines && ids == IdsOf(line)) continue;
    ++wrong;
    std::printf("text %d: '%s'\n  wanted %s\n  got   ", texts, text.c_str(), line.c_str());
    for (const int32_t id : ids) std::printf(" %d", id);
    std::printf("\n");
  }
  std::printf("%d of %d texts agree\n", texts - wrong, texts);
  return texts > 0 && wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace quantmill

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("gguf_tokenizer_vectors VOCABULARY INPUT IDS\n", stderr);
    return 2;
  }
  try {
    return quantmill::Compare(argv[1], argv[2], argv[3]);
  } catch (const quantmill::Error& error) {
    std::printf("%s\n", error.what());
    return static_cast<int>(error.code());
  }
}
