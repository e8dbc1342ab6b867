// The layouts of AWQ files and what they have in common. Private to formats/.
#ifndef QUANTMILL_FORMATS_AWQ_LAYOUTS_H_
#define QUANTMILL_FORMATS_AWQ_LAYOUTS_H_

#include <memory>

#include "formats/artifact.h"
#include "formats/qweight.h"

namespace quantmill {

inline constexpr int kAwqBits = 4;
inline constexpr int64_t kAwqPerWord = 8;  // codes in 32 bits

// All modules of a file have one scheme.
class AwqReader : public QweightReader {
 public:
  AwqReader(const Checkpoint& checkpoint, const QuantScheme& scheme)
      : QweightReader(checkpoint, {kQweight, kQzeros, kScales}), scheme_(scheme) {}

  std::string_view format() const final { return "awq"; }

 protected:
  QuantScheme StoredScheme(const ModuleTensors&) const final { return scheme_; }

 private:
  QuantScheme scheme_;
};

std::unique_ptr<ArtifactReader> OpenAwqGemm(const Checkpoint& checkpoint,
                                            const QuantScheme& scheme);
std::unique_ptr<ArtifactReader> OpenAwqGemv(const Checkpoint& checkpoint,
                                            const QuantScheme& scheme);
std::unique_ptr<ArtifactReader> OpenAwqGemvFast(const Checkpoint& checkpoint,
                                                const QuantScheme& scheme);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_AWQ_LAYOUTS_H_
