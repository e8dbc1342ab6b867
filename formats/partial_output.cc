#include "formats/partial_output.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>
#include <vector>

#include "formats/file_calls.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

namespace fs = std::filesystem;

// A leaked list: destructors of statics must not race with it.
std::mutex& RegistryMutex() {
  static auto& mutex = *new std::mutex;
  return mutex;
}
std::vector<fs::path>& Registry() {
  static auto& paths = *new std::vector<fs::path>;
  return paths;
}

void CheckParent(const fs::path& parent) {
  struct stat info {};
  if (stat(parent.c_str(), &info) != 0) {
    throw Error(ErrorCode::kEnvironment, parent.string(),
                std::string(std::strerror(errno)) + ": create this folder first");
  }
  if (!S_ISDIR(info.st_mode)) {
    throw Error(ErrorCode::kEnvironment, parent.string(), "is not a folder");
  }
}

}  // namespace

fs::path OutputPath(const fs::path& path) {
  if (path.empty()) throw Error(ErrorCode::kUsage, "output", "is empty: no name for an output");
  fs::path result = fs::absolute(path).lexically_normal();
  if (!result.has_filename()) result = result.parent_path();
  if (result == result.root_path()) {
    throw Error(ErrorCode::kUsage, path.string(), "is no name for an output");
  }
  CheckParent(result.parent_path());
  return result;
}

bool Exists(const fs::path& path) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0;
}

std::string PartialPrefix(const fs::path& final_path) {
  return "." + final_path.filename().string() + ".partial-";
}

std::string UniqueSuffix() {
  static std::atomic<int> made = 0;
  const int count = made++;
  return std::to_string(getpid()) + (count == 0 ? "" : "-" + std::to_string(count));
}

void RememberPartial(const fs::path& path) {
  const std::lock_guard lock(RegistryMutex());
  Registry().push_back(path);
}

void ForgetPartial(const fs::path& path) {
  const std::lock_guard lock(RegistryMutex());
  std::erase(Registry(), path);
}

void RemovePartialOutputs() noexcept {
  try {
    const std::lock_guard lock(RegistryMutex());
    for (const fs::path& path : Registry()) {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
    Registry().clear();
  } catch (...) {  // no memory for a path: the outputs stay, hidden, and are named by Leftovers
  }
}

void PublishNew(const fs::path& partial, const fs::path& final_path) {
  if (calls::RenameExclusive(partial.c_str(), final_path.c_str()) == 0) return;
  if (errno == EEXIST || errno == ENOTEMPTY) ThrowExists(final_path);
  ThrowEnvironment(final_path, "rename", errno);
}

void ThrowExists(const fs::path& path) {
  throw Error(ErrorCode::kUsage, path.string(),
              "exists already; give another output or --force to replace it");
}

void ThrowEnvironment(const fs::path& path, const std::string& doing, int error) {
  throw Error(ErrorCode::kEnvironment, path.string(), "cannot " + doing + ": " + Explain(error));
}

}  // namespace quantmill
