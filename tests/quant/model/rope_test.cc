#include "quant/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace quantmill {
namespace {

RopeSpec Read(const nlohmann::json& json, int64_t head_dim, int64_t max_positions = 2048) {
  return ReadRope(ConfigReader(json, "config.json"), head_dim, max_positions);
}

TEST(Rope, PlainFrequencies) {
  const RopeSpec rope = Read({{"rope_theta", 10000.0}}, 8);
  ASSERT_EQ(rope.inv_freq.size(), 4u);
  EXPECT_EQ(rope.rotary_dim, 8);
  EXPECT_FLOAT_EQ(rope.inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(rope.inv_freq[1], 0.1f);
  EXPECT_FLOAT_EQ(rope.inv_freq[2], 0.01f);
  EXPECT_FLOAT_EQ(rope.inv_freq[3], 0.001f);
  EXPECT_EQ(rope.amplitude, 1.0f);
}

TEST(Rope, ThetaDefaultsTo10000) {
  EXPECT_EQ(Read(nlohmann::json::object(), 64).inv_freq, Read({{"rope_theta", 1e4}}, 64).inv_freq);
}

// formats.md section 8.1: theta 5e5, d 128, factor 8, low 1, high 4, original 8192.
TEST(Rope, Llama3PublishedValues) {
  const RopeSpec rope = Read({{"rope_theta", 5e5},
                              {"rope_scaling",
                               {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 1.0},
                                {"high_freq_factor", 4.0},
                                {"original_max_position_embeddings", 8192}}}},
                             128);
  EXPECT_NEAR(rope.inv_freq[28], 3.21145e-3, 1e-8);
  EXPECT_NEAR(rope.inv_freq[32], 5.24846e-4, 1e-9);
  EXPECT_NEAR(rope.inv_freq[40], 3.42810e-5, 1e-10);
}

TEST(Rope, LongRopeHasFactorsForShortAndLongSequences) {
  nlohmann::json config = {{"rope_theta", 1e4},
                           {"original_max_position_embeddings", 4096},
                           {"rope_scaling",
                            {{"type", "longrope"},
                             {"short_factor", {1.0, 2.0, 1.0, 4.0}},
                             {"long_factor", {2.0, 10.0, 1.0, 8.0}}}}};
  const RopeSpec rope = Read(config, 8, 131072);
  EXPECT_FLOAT_EQ(rope.FrequenciesFor(4096)[1], 0.05f);
  EXPECT_FLOAT_EQ(rope.FrequenciesFor(4097)[1], 0.01f);
  EXPECT_FLOAT_EQ(rope.FrequenciesFor(4097)[0], 0.5f);
  // sqrt(1 + ln 32 / ln 4096) = sqrt(1 + 5 / 12)
  EXPECT_FLOAT_EQ(rope.amplitude, std::sqrt(17.0f / 12.0f));
  EXPECT_EQ(Read(config, 8, 4096).amplitude, 1.0f) << "no longer context, no factor";
  for (const nlohmann::json& bad :
       {nlohmann::json{1.0, 2.0, 1.0}, nlohmann::json{1.0, 2.0, 1.0, 0.0}, nlohmann::json("x")}) {
    config["rope_scaling"]["long_factor"] = bad;
    EXPECT_THROW(Read(config, 8, 131072), Error) << bad;
  }
}

// formats.md section 8.1: theta 1e6, d 128, original 32768, factor 4: low 23, high 40.
TEST(Rope, YarnPublishedValues) {
  const RopeSpec rope =
      Read({{"rope_theta", 1e6},
            {"rope_scaling",
             {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}}}},
           128);
  const auto plain = [](int i) { return std::pow(1e6, -2.0 * i / 128); };
  EXPECT_NEAR(rope.amplitude, 1.1386294, 1e-6);
  EXPECT_NEAR(rope.inv_freq[23] / plain(23), 1.0, 1e-6);   // below the ramp: extrapolated
  EXPECT_NEAR(rope.inv_freq[40] / plain(40), 0.25, 1e-6);  // above: interpolated
  const double ramp = (30.0 - 23.0) / (40.0 - 23.0);
  EXPECT_NEAR(rope.inv_freq[30] / plain(30), 0.25 * ramp + (1 - ramp), 1e-6);
}

TEST(Rope, Linear) {
  const RopeSpec rope = Read({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}, 4);
  EXPECT_FLOAT_EQ(rope.inv_freq[0], 0.5f);
}

TEST(Rope, Transformers5Parameters) {
  const RopeSpec rope =
      Read({{"rope_parameters",
             {{"rope_type", "default"}, {"rope_theta", 100.0}, {"partial_rotary_factor", 0.5}}}},
           8);
  EXPECT_EQ(rope.rotary_dim, 4);
  EXPECT_FLOAT_EQ(rope.inv_freq[1], 0.1f);
}

TEST(Rope, RefusesWhatItCannotDo) {
  for (const char* type : {"dynamic", "proportional", "mrope"}) {
    try {
      Read({{"rope_scaling", {{"rope_type", type}, {"factor", 2.0}}}}, 8);
      FAIL() << type;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_NE(error.message().find(type), std::string::npos);
    }
  }
  EXPECT_THROW(Read({{"rope_theta", 0.5}}, 8), Error);
  EXPECT_THROW(Read({{"partial_rotary_factor", 0.4}}, 8), Error);  // 3 dimensions
  EXPECT_THROW(Read({{"rope_scaling", {{"rope_type", "linear"}}}}, 8), Error);
}

}  // namespace
}  // namespace quantmill
