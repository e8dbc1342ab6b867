// What outputs have in common that appear under their final name complete, or not at all: the
// hidden name until then, the rename, the list for clean-up. Private to formats/.
#ifndef QUANTMILL_FORMATS_PARTIAL_OUTPUT_H_
#define QUANTMILL_FORMATS_PARTIAL_OUTPUT_H_

#include <filesystem>
#include <string>

namespace quantmill {

// Absolute and without a trailing slash, so that it has a parent and a name. Throws Error(kUsage)
// for an empty path or a root, Error(kEnvironment) if the parent is missing or is no folder.
std::filesystem::path OutputPath(const std::filesystem::path& path);
// Links count as existing, whatever they point at.
bool Exists(const std::filesystem::path& path);

// The hidden name `.<name>.partial-` of an output, and what follows to tell apart the objects that
// one process, or several, make of it.
std::string PartialPrefix(const std::filesystem::path& final_path);
std::string UniqueSuffix();

// Temporary outputs of this process; both take a lock.
void RememberPartial(const std::filesystem::path& path);
void ForgetPartial(const std::filesystem::path& path);
// Removes every one that is remembered, folder or file.
void RemovePartialOutputs() noexcept;

// Renames `partial` to `final_path`, which must not exist (Error(kUsage)). Throws
// Error(kEnvironment) from the disk.
void PublishNew(const std::filesystem::path& partial, const std::filesystem::path& final_path);

[[noreturn]] void ThrowExists(const std::filesystem::path& path);
// Error(kEnvironment): "cannot <doing>: <reason of errno>".
[[noreturn]] void ThrowEnvironment(const std::filesystem::path& path, const std::string& doing,
                                   int error);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_PARTIAL_OUTPUT_H_
