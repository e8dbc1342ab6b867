#include "tools/leftovers.h"

#include "formats/output_folder.h"

namespace quantmill {

void NoteLeftovers(const std::string& output, const Console& console) {
  for (const auto& path : Leftovers(output)) {
    console.Note("note: " + path.string() +
                 " was left by a run that was killed; it is incomplete and can be removed\n");
  }
}

}  // namespace quantmill
