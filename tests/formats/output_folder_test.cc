#include "formats/output_folder.h"

#include <sys/stat.h>

#include <cerrno>
#include <fstream>

#include "formats/file_faults.h"
#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(OutputFolder, AppearsOnCommitOnly) {
  TempFolder folder;
  {
    OutputFolder out(folder / "model", false);
    out.WriteText("config.json", "{}");
    EXPECT_FALSE(fs::exists(folder / "model"));
    EXPECT_EQ(out.path().parent_path(), folder.path());
    EXPECT_TRUE(out.path().filename().string().starts_with(".model.partial-"));
    out.Commit();
  }
  EXPECT_THAT(List(folder.path()), ElementsAre("model"));
  EXPECT_EQ(ReadFile(folder / "model" / "config.json"), "{}");
}

TEST(OutputFolder, LeavesNothingWithoutCommit) {
  TempFolder folder;
  {
    OutputFolder out(folder / "model/", false);  // a trailing slash is the same name
    fs::create_directory(out.path() / "sub");
    out.WriteText("sub/file", "text");
  }
  EXPECT_THAT(List(folder.path()), IsEmpty());
}

TEST(OutputFolder, RefusesAnExistingOutput) {
  TempFolder folder;
  WriteFile(folder / "model" / "config.json", "old");
  ExpectError(ErrorCode::kUsage, {"exists already", "--force"},
              [&] { OutputFolder(folder / "model", false); });
  fs::create_symlink("nowhere", folder / "link");
  ExpectError(ErrorCode::kUsage, {"--force"}, [&] { OutputFolder(folder / "link", false); });
  WriteFile(folder / "notes", "mine");  // which --force would not replace either
  ExpectError(ErrorCode::kUsage, {"is not a folder"},
              [&] { OutputFolder(folder / "notes", false); });
  EXPECT_THAT(List(folder.path()), ElementsAre("link", "model", "notes"));
}

TEST(OutputFolder, RefusesAnOutputThatAppearedMeanwhile) {
  TempFolder folder;
  {
    OutputFolder out(folder / "model", false);
    WriteFile(folder / "model" / "config.json", "another's");
    ExpectError(ErrorCode::kUsage, {"exists already"}, [&] { out.Commit(); });
  }
  EXPECT_THAT(List(folder.path()), ElementsAre("model"));
  EXPECT_EQ(ReadFile(folder / "model" / "config.json"), "another's");
}

TEST(OutputFolder, ForceReplacesAModelOnly) {
  TempFolder folder;
  const auto refused = [&](const std::string& name, const std::string& part) {
    ExpectError(ErrorCode::kUsage, {part}, [&] { OutputFolder(folder / name, true); });
  };
  WriteFile(folder / "models" / "a" / "config.json", "{}");
  refused("models", "subfolder a");
  WriteFile(folder / "texts" / "diary.txt", "dear diary");
  refused("texts", "does not look like a model");
  WriteFile(folder / "file", "text");
  refused("file", "is not a folder");
  EXPECT_THAT(List(folder.path()), ElementsAre("file", "models", "texts"));
}

// Replaces an old output under these faults; whether it worked.
bool Replace(const fs::path& model, const FileFaults& faults) {
  const ScopedFileFaults scoped(faults);
  try {
    OutputFolder out(model, true);
    out.WriteText("config.json", "new");
    out.Commit();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
    return false;
  }
  return true;
}

TEST(OutputFolder, ForceKeepsOldOrNew) {
  TempFolder folder;
  const fs::path model = folder / "model";
  struct Case {
    FileFaults faults;
    bool works;
  };
  const std::vector<Case> cases = {
      {{}, true},
      {{.exchange_errno = EINVAL}, true},
      {{.sync_errno = EIO}, false},
      {{.rename_errno = EACCES}, false},
      {{.exchange_errno = EINVAL, .rename_errno = EACCES}, false},
      {{.exchange_errno = EINVAL, .rename_errno = EACCES, .renames_before_failure = 1}, false},
  };
  for (const Case& c : cases) {
    fs::remove_all(model);
    WriteFile(model / "config.json", "old");
    WriteFile(model / "extra.txt", "old");
    EXPECT_EQ(Replace(model, c.faults), c.works);
    EXPECT_THAT(List(folder.path()), ElementsAre("model"));
    EXPECT_EQ(ReadFile(model / "config.json"), c.works ? "new" : "old");
    EXPECT_EQ(fs::exists(model / "extra.txt"), !c.works);
  }
}

TEST(OutputFolder, FailedWritesLeaveNothing) {
  TempFolder folder;
  const auto attempt = [&](const FileFaults& faults) {
    const ScopedFileFaults scoped(faults);
    OutputFolder out(folder / "model", false);
    out.WriteText("config.json", "0123456789");
    out.Commit();
  };
  for (const FileFaults& faults : {FileFaults{.write_budget = 0}, FileFaults{.write_budget = 9},
                                   FileFaults{.create_errno = EROFS}, FileFaults{.sync_errno = EIO},
                                   FileFaults{.rename_errno = EROFS}}) {
    ExpectError(ErrorCode::kEnvironment, {}, [&] { attempt(faults); });
    EXPECT_THAT(List(folder.path()), IsEmpty());
  }
}

TEST(OutputFolder, BadParent) {
  TempFolder folder;
  ExpectError(ErrorCode::kEnvironment, {"missing", "No such file", "create this folder"},
              [&] { OutputFolder(folder / "missing/model", false); });
  WriteFile(folder / "file", "");
  ExpectError(ErrorCode::kEnvironment, {"is not a folder"},
              [&] { OutputFolder(folder / "file/model", false); });
  ExpectError(ErrorCode::kUsage, {"no name"}, [&] { OutputFolder("/", true); });
  ExpectError(ErrorCode::kUsage, {"no name"}, [&] { OutputFolder("", true); });
}

TEST(OutputFolder, ReadOnlyParent) {
  TempFolder folder;
  fs::create_directory(folder / "locked");
  ASSERT_EQ(chmod(folder.path().c_str(), 0755), 0);
  ASSERT_EQ(chmod((folder / "locked").c_str(), 0555), 0);
  // Root may write anywhere: be nobody for a moment.
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  ExpectError(ErrorCode::kEnvironment, {"Permission denied", "that you may write to"},
              [&] { OutputFolder(folder / "locked/model", false); });
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
}

TEST(OutputFolder, RequireSpace) {
  TempFolder folder;
  OutputFolder out(folder / "model", false);
  out.RequireSpace(1);
  ExpectError(ErrorCode::kEnvironment, {"are free"}, [&] { out.RequireSpace(uint64_t{1} << 60); });
}

TEST(OutputFolder, NamesLeftoversOfDeadProcesses) {
  TempFolder folder;
  fs::create_directory(folder / ".model.partial-999999999");  // above the largest process number
  fs::create_directory(folder / ".other.partial-999999999");
  std::ofstream(folder / ".model.partial-999999998") << "a single file";
  const OutputFolder out(folder / "model", false);  // its own is not listed
  EXPECT_THAT(Leftovers(folder / "model"), ElementsAre(folder / ".model.partial-999999998",
                                                       folder / ".model.partial-999999999"));
}

TEST(OutputFolder, RemoveAllPartial) {
  TempFolder folder;
  OutputFolder a(folder / "a", false);
  OutputFolder b(folder / "b", false);
  OutputFolder done(folder / "done", false);
  done.Commit();
  OutputFolder::RemoveAllPartial();
  EXPECT_THAT(List(folder.path()), ElementsAre("done"));
}

TEST(OutputFolder, CopiesFiles) {
  TempFolder folder;
  WriteFile(folder / "tokenizer.json", "{\"a\": 1}");
  OutputFolder out(folder / "model", false);
  out.Copy(folder / "tokenizer.json", "tokenizer.json");
  out.Commit();
  EXPECT_EQ(ReadFile(folder / "model" / "tokenizer.json"), "{\"a\": 1}");
}

}  // namespace
}  // namespace quantmill::test
