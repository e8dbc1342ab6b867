#include "formats/kept_folder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "formats/file_faults.h"
#include "formats/output_folder.h"
#include "kernels/core/error.h"
#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;

TEST(KeptFolderTest, StaysUntilItIsRemoved) {
  const TempFolder temp;
  const fs::path path = KeptFolder::PathOf(temp / "out/", "kept");
  EXPECT_EQ(path, temp / ".out.kept");
  {
    const KeptFolder folder(temp / "out", "kept");
    EXPECT_EQ(folder.path(), path);
    folder.PutText("a", "zero");
  }
  EXPECT_FALSE(fs::exists(path)) << "nobody said that it is to be kept";
  {
    KeptFolder folder(temp / "out", "kept");
    folder.PutText("a", "one");
    folder.PutText("a", "two");
    folder.Keep();
    OutputFolder::RemoveAllPartial();
  }
  std::string text;
  std::ifstream(path / "a") >> text;
  EXPECT_EQ(text, "two");
  KeptFolder folder(temp / "out", "kept");
  folder.Clear();
  EXPECT_TRUE(fs::is_empty(path));
  folder.Remove();
  EXPECT_FALSE(fs::exists(path));
  const KeptFolder other(temp / "out", "other");
  OutputFolder::RemoveAllPartial();
  EXPECT_FALSE(fs::exists(other.path()));
}

TEST(KeptFolderTest, HasOneUserAtATime) {
  const TempFolder temp;
  const KeptFolder folder(temp / "out", "kept");
  try {
    const KeptFolder second(temp / "out", "kept");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
  }
  EXPECT_NO_THROW(KeptFolder(temp / "out", "other"));
  EXPECT_NO_THROW(KeptFolder(temp / "out2", "kept"));
}

TEST(KeptFolderTest, AFileThatCannotBeWrittenIsAbsent) {
  const TempFolder temp;
  const KeptFolder folder(temp / "out", "kept");
  {
    const ScopedFileFaults faults({.write_budget = 2});
    EXPECT_THROW(folder.PutText("a", "three"), Error);
  }
  EXPECT_FALSE(fs::exists(folder.path() / "a"));
  {
    const ScopedFileFaults faults({.rename_errno = 5});
    EXPECT_THROW(folder.PutText("a", "three"), Error);
  }
  EXPECT_FALSE(fs::exists(folder.path() / "a"));
  folder.PutText("a", "three");
  EXPECT_TRUE(fs::exists(folder.path() / "a"));
}

TEST(KeptFolderTest, PathsThatCannotBeOutputs) {
  const TempFolder temp;
  EXPECT_THROW(KeptFolder("/", "kept"), Error);
  EXPECT_THROW(KeptFolder(temp / "none/out", "kept"), Error);
  std::ofstream(temp / ".out.kept") << "a file";
  EXPECT_THROW(KeptFolder(temp / "out", "kept"), Error);
}

}  // namespace
}  // namespace quantmill::test
