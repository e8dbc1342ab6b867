// Recipes as YAML (docs/methods.md, "Recipes").
#ifndef QUANTMILL_QUANT_PIPELINE_RECIPE_FILE_H_
#define QUANTMILL_QUANT_PIPELINE_RECIPE_FILE_H_

#include <string>

#include "quant/pipeline/recipe_draft.h"

namespace quantmill {

// The built-in recipe of that name, or else the file; what it includes comes first, in order.
// Throws Error(kBadInput) for a file that cannot be read or is longer than a recipe can be, and
// Error(kUsage) naming file and line for everything else: no YAML, an unknown key (with the
// nearest), a key given twice, a value of the wrong type, includes in a circle. Values are checked
// by ResolveRecipe.
RecipeDraft LoadRecipe(const std::string& name_or_path);

// The same of a text. `where`: what errors call it. Files that it includes are looked for from the
// current folder.
RecipeDraft ParseRecipe(const std::string& yaml, const std::string& where);

// A recipe file that resolves to `recipe` again. What does not change the result (max_host_mem,
// max_gpu_mem) is left out. `head`: a comment for its first lines.
std::string RecipeYaml(const Recipe& recipe, const std::string& head);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RECIPE_FILE_H_
