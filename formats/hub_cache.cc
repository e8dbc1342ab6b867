// Models that Hugging Face tools have already downloaded. Nothing is fetched from here.
#include <cstdlib>
#include <system_error>

#include "formats/checkpoint.h"
#include "formats/file.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

namespace fs = std::filesystem;

// The variable's value; an empty one counts as unset, as it does for the hub's own library.
std::optional<fs::path> FromEnvironment(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return fs::path(value);
}

bool IsIdCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

// One part of an id, or a revision: nothing that could lead out of a folder.
bool IsPlainName(std::string_view text) {
  if (text.empty() || text == "." || text.find("..") != std::string_view::npos) return false;
  for (const char c : text) {
    if (!IsIdCharacter(c)) return false;
  }
  return true;
}

}  // namespace

fs::path HubCacheFolder() {
  if (const auto folder = FromEnvironment("HF_HUB_CACHE")) return *folder;
  if (const auto folder = FromEnvironment("HUGGINGFACE_HUB_CACHE")) return *folder;  // older name
  if (const auto folder = FromEnvironment("HF_HOME")) return *folder / "hub";
  if (const auto folder = FromEnvironment("XDG_CACHE_HOME")) return *folder / "huggingface" / "hub";
  return FromEnvironment("HOME").value_or("/") / ".cache" / "huggingface" / "hub";
}

bool IsHubId(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return IsPlainName(text);
  return IsPlainName(text.substr(0, slash)) && IsPlainName(text.substr(slash + 1));
}

std::optional<fs::path> FindInHubCache(const std::string& id) {
  if (!IsHubId(id)) return std::nullopt;
  std::string name = "models--" + id;
  if (const size_t slash = name.find('/'); slash != std::string::npos) {
    name.replace(slash, 1, "--");
  }
  const fs::path model = HubCacheFolder() / name;
  const fs::path reference = model / "refs" / "main";
  std::error_code error;
  if (!fs::is_regular_file(reference, error)) return std::nullopt;
  std::string revision = ReadTextFile(reference, 1024);
  while (!revision.empty() && (revision.back() == '\n' || revision.back() == ' ')) {
    revision.pop_back();
  }
  if (!IsPlainName(revision)) {
    throw Error(ErrorCode::kBadInput, reference.string(), "does not hold the name of a revision");
  }
  const fs::path snapshot = model / "snapshots" / revision;
  if (!fs::is_directory(snapshot, error)) {
    throw Error(ErrorCode::kBadInput, snapshot.string(),
                "is missing from the Hugging Face cache: download the model again (hf download " +
                    id + ")");
  }
  return fs::absolute(snapshot).lexically_normal();
}

}  // namespace quantmill
