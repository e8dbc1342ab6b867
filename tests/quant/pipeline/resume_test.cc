// Runs that stop and go on: the same bytes as without the stop, for whatever a block can hold, and
// what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "formats/file_faults.h"
#include "formats/sha256.h"
#include "quant/pipeline/quantize.h"
#include "quant/pipeline/savepoints.h"
#include "quant/pipeline/schemes.h"
#include "tests/support/backends.h"

namespace quantmill::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kSample = "calib_data/sample_model";
constexpr int64_t kSitesOfBlock = 4;

Recipe SmallRecipe(const std::string& scheme = "w4a16:g64") {
  Recipe recipe;
  recipe.scheme = MakeScheme(ParseScheme(scheme, "test"), "test");
  const MethodChoice choice = DefaultMethod(recipe.scheme);
  recipe.transform = choice.transform;
  recipe.method = Method::kGptq;
  recipe.effort = Effort::kFast;
  recipe.calibration.samples = 3;
  recipe.calibration.sequence_length = 64;
  return recipe;
}

class ResumeTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(testing::TempDir()) /
        (std::string("resume_") + testing::UnitTest::GetInstance()->current_test_info()->name() +
         "_" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Output() const { return (folder_ / "out").string(); }
  fs::path Kept() const { return folder_ / ".out.savepoints"; }
  QuantizeReport Run(const Recipe& recipe, const std::string& output, OutputOptions options,
                     const QuantizeCallbacks& callbacks = {}) {
    BackendRun run(CpuBackend(AvailableIsas().front(), 2));
    return Quantize(run.backend(), run.exec(), ModelSource::Open(kSample), recipe, output, options,
                    callbacks);
  }
  // Stops when `blocks` blocks and one site of the next are done.
  Error Stopped(const Recipe& recipe, int64_t blocks, bool resume = false) {
    int64_t done = 0;
    QuantizeCallbacks callbacks;
    callbacks.on_progress = [&](const QuantizeProgress& progress) { done = progress.done; };
    callbacks.interrupted = [&] { return done > blocks * kSitesOfBlock; };
    return Failure(
        [&] { Run(recipe, Output(), {.savepoints = true, .resume = resume}, callbacks); });
  }
  static Error Failure(const std::function<void()>& run) {
    try {
      run();
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return {ErrorCode::kUsage, "", ""};
  }
  std::set<std::string> Entries() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  // File -> hash; of a single file too.
  static std::map<std::string, std::string> Contents(const fs::path& output) {
    if (!fs::is_directory(output)) return {{"", HashFile(output)}};
    std::map<std::string, std::string> contents;
    for (const auto& entry : fs::directory_iterator(output)) {
      contents[entry.path().filename().string()] = HashFile(entry.path());
    }
    return contents;
  }
  // One run that is stopped behind its first block and resumed, beside one that is not.
  void ExpectSameBytes(const Recipe& recipe) {
    const std::string whole = (folder_ / "whole").string();
    const QuantizeReport wanted = Run(recipe, whole, {});
    EXPECT_EQ(Stopped(recipe, 1).code(), ErrorCode::kResumable);
    EXPECT_EQ(Entries(), (std::set<std::string>{"whole", ".out.savepoints"}));
    std::vector<std::string> notes;
    QuantizeCallbacks callbacks;
    callbacks.on_note = [&](const std::string& note) { notes.push_back(note); };
    const QuantizeReport report =
        Run(recipe, Output(), {.savepoints = true, .resume = true}, callbacks);
    EXPECT_EQ(Contents(Output()), Contents(whole));
    EXPECT_EQ(Entries(), (std::set<std::string>{"whole", "out"}));
    ASSERT_EQ(notes.size(), 1u);
    EXPECT_THAT(notes[0], HasSubstr("after 1 of 4 blocks"));
    ASSERT_EQ(report.layers.size(), wanted.layers.size());
    for (size_t i = 0; i < report.layers.size(); ++i) {
      EXPECT_EQ(report.layers[i].name, wanted.layers[i].name);
      EXPECT_EQ(report.layers[i].relative_error, wanted.layers[i].relative_error);
    }
    EXPECT_EQ(report.events.size(), wanted.events.size());
  }

  fs::path folder_;
};

// Both streams, the asymmetric target, a layer that stays dense, the head.
TEST_F(ResumeTest, GptqWithTwoStreams) {
  Recipe recipe = SmallRecipe();
  recipe.effort = Effort::kBest;
  recipe.rules = {{".*layers.0.self_attn.o_proj", std::nullopt, "test"}};
  ExpectSameBytes(recipe);
}

TEST_F(ResumeTest, ZeroPointsAndFoldings) {
  Recipe recipe = SmallRecipe("w3a16:g64:asym");
  recipe.transform = Transform::kAwq;
  ExpectSameBytes(recipe);
}

TEST_F(ResumeTest, StaticInputsAndCache) {
  Recipe recipe = SmallRecipe("w8a8-static-asym");
  recipe.kv.type = KvScheme::Type::kFp8;
  ExpectSameBytes(recipe);
}

TEST_F(ResumeTest, Floats) { ExpectSameBytes(SmallRecipe("nvfp4")); }

TEST_F(ResumeTest, RowsOfGgufBlocks) {
  for (const char* type : {"q4_k_m", "q4_0"}) {
    SCOPED_TRACE(type);
    Recipe recipe = SmallRecipe();
    recipe.format = "gguf";
    recipe.gguf = GgufChoice{};
    recipe.gguf->type = type;
    ExpectSameBytes(recipe);
    fs::remove_all(folder_ / "whole");
    fs::remove_all(Output());
  }
}

TEST_F(ResumeTest, StopsSeveralTimes) {
  const Recipe recipe = SmallRecipe();
  Run(recipe, (folder_ / "whole").string(), {});
  EXPECT_THAT(Stopped(recipe, 1).what(), HasSubstr("1 finished block is kept in"));
  EXPECT_THAT(Stopped(recipe, 0, true).what(), HasSubstr("1 finished block is"));
  EXPECT_THAT(Stopped(recipe, 3, true).what(), HasSubstr("3 finished blocks are kept in"));
  Run(recipe, Output(), {.savepoints = true, .resume = true});
  EXPECT_EQ(Contents(Output()), Contents(folder_ / "whole"));
}

TEST_F(ResumeTest, NothingIsKeptBeforeTheFirstBlock) {
  EXPECT_EQ(Stopped(SmallRecipe(), 0).code(), ErrorCode::kInterrupted);
  EXPECT_TRUE(Entries().empty());
}

TEST_F(ResumeTest, NothingIsKeptWhereItWasNotAskedFor) {
  Recipe recipe = SmallRecipe();
  QuantizeCallbacks callbacks;
  int64_t done = 0;
  callbacks.on_progress = [&](const QuantizeProgress& progress) { done = progress.done; };
  callbacks.interrupted = [&] { return done > 2 * kSitesOfBlock; };
  const Error error = Failure([&] { Run(recipe, Output(), {}, callbacks); });
  EXPECT_EQ(error.code(), ErrorCode::kInterrupted);
  EXPECT_TRUE(Entries().empty());
}

TEST_F(ResumeTest, AFreshRunDoesNotThrowFinishedBlocksAway) {
  const Recipe recipe = SmallRecipe();
  Stopped(recipe, 2);
  const Error error = Failure([&] { Run(recipe, Output(), {.savepoints = true}); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.what(), HasSubstr("2 finished blocks: --resume goes on"));
  EXPECT_EQ(Entries(), std::set<std::string>{".out.savepoints"});
  EXPECT_THROW(CheckNoSavepoints(Output()), Error);
  Run(recipe, Output(), {.force = true, .savepoints = true});
  EXPECT_EQ(Entries(), std::set<std::string>{"out"});
  EXPECT_NO_THROW(CheckNoSavepoints(Output()));
}

TEST_F(ResumeTest, BlocksOfAnotherRunAreRefusedByWhatDiffers) {
  Stopped(SmallRecipe(), 1);
  const auto refused = [&](const Recipe& recipe, const std::string& part) {
    const Error error =
        Failure([&] { Run(recipe, Output(), {.savepoints = true, .resume = true}); });
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr(part));
    EXPECT_TRUE(fs::exists(Kept() / "block-00000.json"));
  };
  Recipe recipe = SmallRecipe();
  recipe.damp_percent = 0.02;
  refused(recipe, "'recipe/damp_percent' differs");
  recipe = SmallRecipe();
  recipe.calibration.seed = 7;
  refused(recipe, "differs");
  refused(SmallRecipe("w4a16:g32"), "'recipe/group_size' differs");
  Run(SmallRecipe(), Output(), {.savepoints = true, .resume = true});
}

// As a process that was killed in the middle of a block leaves it.
TEST_F(ResumeTest, ABlockThatWasNotFinishedIsMadeAgain) {
  const Recipe recipe = SmallRecipe();
  Run(recipe, (folder_ / "whole").string(), {});
  Stopped(recipe, 2);
  std::ofstream(Kept() / "block-00002.safetensors") << "half a file";
  std::ofstream(Kept() / "block-00002.json.unfinished") << "{";
  Run(recipe, Output(), {.savepoints = true, .resume = true});
  EXPECT_EQ(Contents(Output()), Contents(folder_ / "whole"));
}

TEST_F(ResumeTest, DamageIsToldAndNamed) {
  const Recipe recipe = SmallRecipe();
  const auto damaged = [&](const std::string& name, const std::string& text) {
    Stopped(recipe, 1);
    std::ofstream(Kept() / name) << text;
    const Error error =
        Failure([&] { Run(recipe, Output(), {.savepoints = true, .resume = true}); });
    EXPECT_EQ(error.code(), ErrorCode::kBadInput) << name;
    EXPECT_THAT(error.what(), HasSubstr(".out.savepoints"));
    EXPECT_TRUE(fs::exists(Kept())) << "not ours to throw away";
    fs::remove_all(Kept());
  };
  damaged("identity.json", "[]");
  damaged("block-00000.json", "{\"layers\": 3}");
  damaged("block-00000.safetensors", "short");
}

TEST_F(ResumeTest, OneFlippedBitOfABlockIsFound) {
  const Recipe recipe = SmallRecipe();
  Stopped(recipe, 1);
  const fs::path file = Kept() / "block-00000.safetensors";
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekg(-1, std::ios::end);
  const auto last = static_cast<char>(stream.peek());
  stream.seekp(-1, std::ios::end);
  stream.put(static_cast<char>(last ^ 1));
  stream.close();
  const Error error = Failure([&] { Run(recipe, Output(), {.savepoints = true, .resume = true}); });
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_THAT(error.what(), HasSubstr("block-00000.safetensors: is not what an earlier run wrote"));
}

TEST_F(ResumeTest, AFullDiskIsNoReasonToBeginAgain) {
  const Recipe recipe = SmallRecipe();
  Run(recipe, (folder_ / "whole").string(), {});
  QuantizeCallbacks callbacks;
  std::optional<ScopedFileFaults> full;
  callbacks.on_progress = [&](const QuantizeProgress& progress) {
    if (progress.done == 2 * kSitesOfBlock) full.emplace(FileFaults{.write_budget = 1000});
  };
  const Error error = Failure([&] { Run(recipe, Output(), {.savepoints = true}, callbacks); });
  full.reset();
  EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
  EXPECT_THAT(error.what(), HasSubstr("No space left"));
  EXPECT_THAT(error.what(), HasSubstr("with --resume goes on"));
  Run(recipe, Output(), {.savepoints = true, .resume = true});
  EXPECT_EQ(Contents(Output()), Contents(folder_ / "whole"));
}

// What failed for its input would fail again.
TEST_F(ResumeTest, NothingIsKeptOfARunThatCannotEndWell) {
  Recipe recipe = SmallRecipe();
  QuantizeCallbacks callbacks;
  callbacks.on_progress = [&](const QuantizeProgress& progress) {
    if (progress.done > 2 * kSitesOfBlock) throw Error(ErrorCode::kBadInput, "layer", "is NaN");
  };
  Failure([&] { Run(recipe, Output(), {.savepoints = true}, callbacks); });
  EXPECT_TRUE(Entries().empty());
}

TEST_F(ResumeTest, OnlyOneProcessWritesAnOutput) {
  const Savepoints held(Output(), Savepoints::Earlier::kResume);
  const Error error = Failure([&] { Run(SmallRecipe(), Output(), {.savepoints = true}); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.what(), HasSubstr("another process"));
}

}  // namespace
}  // namespace quantmill::test
