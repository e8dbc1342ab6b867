// Metadata of a GGUF file under the architecture's prefix, and a record of what has been asked for.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_KEY_READER_H_
#define QUANTMILL_QUANT_MODEL_GGUF_KEY_READER_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "formats/gguf/model_files.h"
#include "quant/model/gguf_family.h"

namespace quantmill {

// Borrows the files. `name` is a key without the prefix, which is known from then on. Getters throw
// Error(kBadInput) naming the whole key for another type and for values out of range.
class GgufKeyReader {
 public:
  // Throws Error(kBadInput) for an architecture that is not read, and for a file that is no model.
  explicit GgufKeyReader(const GgufModelFiles& files);

  const GgufModelFiles& files() const { return files_; }
  const GgufMetadata& metadata() const { return files_.metadata(); }
  const GgufFamily& family() const { return family_; }

  std::string Key(const std::string& name);                    // with the prefix
  std::optional<int64_t> MaybeCount(const std::string& name);  // 0 or more, up to 2^40
  std::optional<int64_t> MaybeSize(const std::string& name);   // positive
  int64_t Size(const std::string& name);                       // and there
  std::optional<double> Real(const std::string& name);         // finite
  std::optional<bool> Bool(const std::string& name);
  const std::string* Text(const std::string& name);
  bool HasTensor(const std::string& name) const { return files_.Find(name) != nullptr; }

  // Throws Error(kBadInput) for a key with the prefix that was not asked for.
  void RefuseUnknown() const;
  // Throws Error(kBadInput). key: with the prefix.
  [[noreturn]] void Refuse(const std::string& key, const std::string& what) const;

 private:
  const GgufFamily& FindFamily() const;

  const GgufModelFiles& files_;
  std::set<std::string> known_;
  const GgufFamily& family_;
};

// Metadata holds F32; the decimal number that was meant is the shortest that rounds to it.
double ShortestDecimal(double value);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_KEY_READER_H_
