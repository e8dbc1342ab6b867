#include "formats/file_faults.h"
#include "formats/safetensors.h"
#include "tests/formats/format_test_util.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;

TEST(SafetensorsWriter, EmptyGolden) {
  TempFolder folder;
  SafetensorsWriter writer(folder / "f", {});
  EXPECT_TRUE(writer.complete());
  writer.Finish();
  const std::string header = R"({"__metadata__":{"format":"pt"}})";
  EXPECT_EQ(ReadFile(folder / "f"), Safetensors(header, ""));
  EXPECT_EQ(header.size() % 8, 0u);
}

TEST(SafetensorsWriter, HeaderIsPaddedWithSpaces) {
  TempFolder folder;
  SafetensorsWriter writer(folder / "f", {Declare("w", DType::kU8, {1})}, {{"format", "pt"}});
  writer.Write("w", AsBytes("x"));
  writer.Finish();
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(ReadFile(folder / "f"), Safetensors(padded, "x"));
}

// The tensors of golden/reference.safetensors, which the format's own library wrote.
TEST(SafetensorsWriter, SameBytesAsTheReferenceLibrary) {
  const fs::path golden = "tests/formats/golden/reference.safetensors";
  const SafetensorsFile file = SafetensorsFile::Open(golden);
  TempFolder folder;
  std::vector<TensorDeclaration> declarations;
  for (const TensorInfo& info : file.tensors()) {
    declarations.push_back({info.name, info.dtype, info.shape});
  }
  EXPECT_GE(declarations.size(), 10u);
  SafetensorsWriter writer(folder / "f", declarations, file.metadata());
  for (const TensorInfo& info : file.tensors()) writer.Write(info.name, file.Bytes(info));
  writer.Finish();
  EXPECT_EQ(ReadFile(folder / "f"), ReadFile(golden));
}

TEST(SafetensorsWriter, OrderAndPartsDoNotMatter) {
  TempFolder folder;
  const std::vector<TensorDeclaration> declared = {
      Declare("b", DType::kF16, {3, 2}), Declare("a", DType::kI64, {1}),
      Declare("none", DType::kF32, {0, 7}), Declare("c", DType::kF16, {5})};
  const std::string b = "0123456789ab";
  const std::string a = "ABCDEFGH";
  const std::string c = "klmnopqrst";
  SafetensorsWriter one(folder / "1", declared);
  one.Write("a", AsBytes(a));
  one.Write("b", AsBytes(b));
  one.Write("c", AsBytes(c));
  one.Write("none", {});
  one.Finish();
  SafetensorsWriter two(folder / "2", {declared[3], declared[2], declared[1], declared[0]});
  two.WriteAt("b", 5, AsBytes(b.substr(5)));
  two.Write("c", AsBytes(c));
  EXPECT_FALSE(two.complete());
  two.WriteAt("b", 0, AsBytes(b.substr(0, 5)));
  two.Write("a", AsBytes(a));
  EXPECT_TRUE(two.complete());  // a tensor without bytes needs no Write
  two.Finish();
  EXPECT_EQ(ReadFile(folder / "1"), ReadFile(folder / "2"));
}

TEST(SafetensorsWriter, RoundTripsRandomFiles) {
  Random random(1);
  const std::vector<std::string> types = {"BOOL", "U8",  "I8",  "F8_E4M3", "F8_E5M2", "I16", "F16",
                                          "BF16", "I32", "F32", "F64",     "I64",     "U64", "C64"};
  for (int trial = 0; trial < 50; ++trial) {
    TempFolder folder;
    std::map<std::string, std::string> data;
    std::vector<TensorDeclaration> declared;
    const int64_t count = random.Int(0, 12);
    for (int64_t i = 0; i < count; ++i) {
      const std::string name = "t\"\xC3\xA9." + std::to_string(random.Bits());
      const auto& type = types[static_cast<size_t>(random.Int(0, 13))];
      declared.push_back({name, type, {}});
      for (int64_t d = random.Int(0, 3); d > 0; --d) {
        declared.back().shape.push_back(random.Int(0, 5));
      }
      std::string bytes(declared.back().bytes(), '\0');
      for (char& byte : bytes) byte = static_cast<char>(random.Bits());
      data[name] = bytes;
    }
    SafetensorsWriter writer(folder / "f", declared);
    for (const auto& [name, bytes] : data) writer.Write(name, AsBytes(bytes));
    writer.Finish();
    const SafetensorsFile file = SafetensorsFile::Open(folder / "f");
    ASSERT_EQ(file.tensors().size(), data.size());
    for (const TensorDeclaration& tensor : declared) {
      const TensorInfo* info = file.Find(tensor.name);
      ASSERT_NE(info, nullptr);
      EXPECT_EQ(info->dtype, tensor.dtype);
      EXPECT_EQ(info->shape, tensor.shape);
      const auto bytes = file.Bytes(*info);
      EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                data[tensor.name]);
    }
  }
}

TEST(SafetensorsWriter, RefusesBadDeclarations) {
  TempFolder folder;
  const auto refused = [&](std::vector<TensorDeclaration> tensors, const std::string& part) {
    ExpectError(ErrorCode::kBadInput, {part},
                [&] { SafetensorsWriter(folder / "f", std::move(tensors)); });
    EXPECT_FALSE(fs::exists(folder / "f"));
  };
  refused({Declare("a", DType::kU8, {1}), Declare("a", DType::kF32, {1})}, "declared twice");
  refused({{"a", "I4", {8}}}, "unknown dtype");
  refused({{"a", "U8", {-1}}}, "negative");
  refused({{"a", "U8", {int64_t{1} << 62, 8}}}, "overflows");
  refused({{"a", "F4", {1}}}, "no whole byte");
  refused({Declare("__metadata__", DType::kU8, {1})}, "cannot be stored");
  refused({Declare("", DType::kU8, {1})}, "cannot be stored");
  refused({Declare("\xFF", DType::kU8, {1})}, "UTF-8");
}

TEST(SafetensorsWriterDeathTest, MisuseIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TempFolder folder;
  SafetensorsWriter writer(folder / "f", {Declare("a", DType::kU8, {2})});
  EXPECT_DEATH(writer.Write("b", {}), "not declared");
  EXPECT_DEATH(writer.Write("a", AsBytes("x")), "wrong size");
  EXPECT_DEATH(writer.WriteAt("a", 1, AsBytes("xy")), "outside");
  EXPECT_DEATH(writer.Finish(), "'a' was not written");
  writer.Write("a", AsBytes("xy"));
  EXPECT_DEATH(writer.Write("a", AsBytes("xy")), "written twice");
}

TEST(SafetensorsWriter, DiskFullIsAnError) {
  TempFolder folder;
  const ScopedFileFaults faults({.write_budget = 100, .reserve_errno = EOPNOTSUPP});
  ExpectError(ErrorCode::kEnvironment, {"No space left"}, [&] {
    SafetensorsWriter writer(folder / "f", {Declare("a", DType::kU8, {1000})});
    writer.Write("a", AsBytes(std::string(1000, 'x')));
  });
}

}  // namespace
}  // namespace quantmill::test
