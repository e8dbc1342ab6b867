// What killed runs left beside an output.
#ifndef QUANTMILL_TOOLS_LEFTOVERS_H_
#define QUANTMILL_TOOLS_LEFTOVERS_H_

#include <string>

#include "tools/console.h"

namespace quantmill {

// Tells of the hidden, incomplete outputs that earlier runs toward `output` left when they were
// killed: they take room, and nobody else will name them. Throws as Leftovers (output_folder.h).
void NoteLeftovers(const std::string& output, const Console& console);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_LEFTOVERS_H_
