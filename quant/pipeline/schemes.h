// Schemes by name: what `--scheme` and the `scheme` of a recipe or of a rule may say.
//   NAME[:gN|:channel][:asym|:sym]      "w4a16", "w3a16:g64", "w8a16:channel:asym"
#ifndef QUANTMILL_QUANT_PIPELINE_SCHEMES_H_
#define QUANTMILL_QUANT_PIPELINE_SCHEMES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "kernels/core/scheme.h"

namespace quantmill {

struct NamedScheme {
  std::string name;
  std::string summary;  // for people, a line
  // With its default groups. Scales of integers and of FP8 are said as F16 here: the plan makes
  // them the checkpoint's own dense type (see schemes.cc).
  QuantScheme scheme;
  bool takes_groups;       // the group size may be chosen
  bool takes_zero_points;  // weights may be asymmetric
};

// In the order in which they are listed to people: from few bits to many, then floats.
std::span<const NamedScheme> Schemes();
std::vector<std::string> SchemeNames();

// A scheme as it was asked for: what is absent is the scheme's default.
struct SchemeChoice {
  std::string name;
  std::optional<int64_t> group_size;  // or QuantScheme::kPerChannel
  std::optional<bool> symmetric;
};

// The functions below throw Error(kUsage, where); `where` is the flag, or the line of a recipe.

// Of the grammar above.
SchemeChoice ParseScheme(const std::string& text, const std::string& where);
// "64", "g64", "channel", "-1".
int64_t ParseGroupSize(const std::string& text, const std::string& where);
// Refuses an unknown name (with the nearest), and options that contradict the scheme, saying what
// fits.
QuantScheme MakeScheme(const SchemeChoice& choice, const std::string& where);
// The table's entry. REQUIRES: a name that ParseScheme has taken.
const NamedScheme& SchemeNamed(const std::string& name);

// The inverse of MakeScheme, with groups and zero points spelled out where the scheme leaves a
// choice: "w4a16:g128", "w4a16:g64:asym", "w8a16:channel", "fp8". Scale types play no part.
std::string SchemeText(const QuantScheme& scheme);

// The type in which `format` stores the scales, `dense` being the type of the checkpoint's linear
// weights.
DType ScaleTypeFor(const QuantScheme& scheme, const ArtifactWriterFormat& format, DType dense);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_SCHEMES_H_
