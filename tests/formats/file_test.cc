#include "formats/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "formats/file_faults.h"
#include "formats/sha256.h"
#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(MappedFile, ReadsAndMoves) {
  TempFolder folder;
  WriteFile(folder / "f", "hello");
  MappedFile file = MappedFile::Open(folder / "f");
  EXPECT_EQ(Text(file.bytes()), "hello");
  MappedFile moved = std::move(file);
  EXPECT_EQ(Text(moved.bytes()), "hello");
  moved = MappedFile::Open(folder / "f");
  EXPECT_EQ(Text(moved.bytes()), "hello");
}

TEST(MappedFile, Empty) {
  TempFolder folder;
  WriteFile(folder / "f", "");
  const MappedFile file = MappedFile::Open(folder / "f");
  EXPECT_TRUE(file.bytes().empty());
  file.Release(0, 0);
}

TEST(MappedFile, Refuses) {
  TempFolder folder;
  ExpectError(ErrorCode::kBadInput, {"nowhere", "No such file"},
              [&] { MappedFile::Open(folder / "nowhere"); });
  ExpectError(ErrorCode::kBadInput, {"is a folder"}, [&] { MappedFile::Open(folder.path()); });
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  ExpectError(ErrorCode::kBadInput, {"regular"}, [&] { MappedFile::Open(folder / "pipe"); });
}

// Resident pages of a mapping.
int64_t ResidentPages(std::span<const std::byte> bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> present((bytes.size() + page - 1) / page);
  EXPECT_EQ(mincore(const_cast<std::byte*>(bytes.data()), bytes.size(), present.data()), 0);
  return std::count_if(present.begin(), present.end(), [](unsigned char p) { return p & 1; });
}

// Kilobytes of this process that are mapped from files and resident.
int64_t ResidentFileKilobytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("RssFile:")) return std::stoll(line.substr(8));
  }
  return 0;
}

TEST(MappedFile, ReleaseLowersResidentMemory) {
  TempFolder folder;
  WriteFile(folder / "f", std::string(32 << 20, 'x'));
  const MappedFile file = MappedFile::Open(folder / "f");
  const int64_t before = ResidentFileKilobytes();
  int64_t sum = 0;
  for (const std::byte b : file.bytes()) sum += static_cast<int64_t>(b);
  EXPECT_EQ(sum, int64_t{'x'} << 25);
  EXPECT_GT(ResidentPages(file.bytes()), 0);
  const int64_t full = ResidentFileKilobytes();
  EXPECT_GT(full, before + 30'000);
  file.Release(1, file.bytes().size() - 1);
  EXPECT_LT(ResidentFileKilobytes(), before + 1'000);
  EXPECT_EQ(Text(file.bytes().last(3)), "xxx");
}

TEST(OutputFile, WritesAtOffsets) {
  TempFolder folder;
  OutputFile file = OutputFile::Create(folder / "f");
  file.Reserve(8);
  file.WriteAt(4, BytesOf("5678"));
  file.WriteAt(0, BytesOf("1234"));
  OutputFile moved = std::move(file);
  moved.Finish();
  EXPECT_EQ(ReadFile(folder / "f"), "12345678");
}

TEST(OutputFile, NeverOverwrites) {
  TempFolder folder;
  WriteFile(folder / "f", "old");
  ExpectError(ErrorCode::kEnvironment, {"File exists"}, [&] { OutputFile::Create(folder / "f"); });
  EXPECT_EQ(ReadFile(folder / "f"), "old");
}

TEST(OutputFile, SurvivesShortAndInterruptedWrites) {
  TempFolder folder;
  const ScopedFileFaults faults({.max_write_size = 3, .interrupted_writes = 5});
  WriteTextFile(folder / "f", "a text longer than three bytes");
  EXPECT_EQ(ReadFile(folder / "f"), "a text longer than three bytes");
}

TEST(OutputFile, ReportsFaults) {
  TempFolder folder;
  const auto write = [&](const std::string& name, const FileFaults& faults) {
    const ScopedFileFaults scoped(faults);
    OutputFile file = OutputFile::Create(folder / name);
    file.Reserve(100);
    file.WriteAt(0, BytesOf("0123456789"));
    file.Finish();
  };
  const auto expect = [&](const FileFaults& faults, const std::vector<std::string>& parts) {
    static int count = 0;
    const std::string name = "f" + std::to_string(count++);
    ExpectError(ErrorCode::kEnvironment, parts, [&] { write(name, faults); });
  };
  expect({.write_budget = 7}, {"No space left", "free some space"});
  expect({.write_budget = 0, .write_errno = EDQUOT}, {"quota"});
  expect({.create_errno = EROFS}, {"Read-only", "choose an output"});
  expect({.create_errno = EACCES}, {"Permission denied"});
  expect({.reserve_errno = ENOSPC}, {"cannot reserve 100 bytes"});
  expect({.sync_errno = EIO}, {"cannot sync"});
  write("kept", {.reserve_errno = EOPNOTSUPP});  // a file system that cannot reserve is no error
}

TEST(TextFile, Bound) {
  TempFolder folder;
  WriteFile(folder / "f", "12345");
  EXPECT_EQ(ReadTextFile(folder / "f", 5), "12345");
  ExpectError(ErrorCode::kBadInput, {"has 5 bytes"}, [&] { ReadTextFile(folder / "f", 4); });
}

TEST(CopyFile, ByteExactFollowingLinks) {
  TempFolder folder;
  std::string text(3'000'001, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 2654435761u >> 13);
  WriteFile(folder / "from", text);
  std::filesystem::create_symlink("from", folder / "link");
  CopyFile(folder / "link", folder / "to");
  EXPECT_EQ(ReadFile(folder / "to"), text);
  EXPECT_FALSE(std::filesystem::is_symlink(folder / "to"));
  WriteFile(folder / "empty", "");
  CopyFile(folder / "empty", folder / "to_empty");
  EXPECT_EQ(ReadFile(folder / "to_empty"), "");
  ExpectError(ErrorCode::kBadInput, {"nowhere"},
              [&] { CopyFile(folder / "nowhere", folder / "x"); });
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, FileEqualsText) {
  TempFolder folder;
  const std::string text(9'000'001, 'q');  // NOLINT(bugprone-string-constructor): three pieces
  WriteFile(folder / "f", text);
  EXPECT_EQ(HashFile(folder / "f"), Sha256Hex(text));
}

}  // namespace
}  // namespace quantmill::test
