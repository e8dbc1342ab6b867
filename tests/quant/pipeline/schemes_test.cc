#include "quant/pipeline/schemes.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

QuantScheme Scheme(const std::string& text) { return MakeScheme(ParseScheme(text, "w"), "w"); }

TEST(Schemes, EveryNameMakesASchemeWhoseTextMakesItAgain) {
  ASSERT_GE(Schemes().size(), 10u);
  for (const NamedScheme& named : Schemes()) {
    const QuantScheme scheme = Scheme(named.name);
    EXPECT_EQ(scheme, named.scheme);
    EXPECT_EQ(Scheme(SchemeText(scheme)), scheme) << SchemeText(scheme);
  }
}

TEST(Schemes, OptionsArePartOfTheText) {
  const QuantScheme scheme = Scheme("w3a16:g64:asym");
  EXPECT_EQ(scheme.bits, 3);
  EXPECT_EQ(scheme.group_size, 64);
  EXPECT_FALSE(scheme.symmetric);
  EXPECT_EQ(SchemeText(scheme), "w3a16:g64:asym");
  EXPECT_EQ(Scheme("w4a16:asym:g64"), Scheme("w4a16:g64:asym"));
  EXPECT_EQ(Scheme("w4a16:sym"), Scheme("w4a16"));
  EXPECT_EQ(SchemeText(Scheme("w8a16")), "w8a16:channel");
  EXPECT_EQ(SchemeText(Scheme("w4a16")), "w4a16:g128");
  EXPECT_EQ(Scheme("mxfp4:g32"), Scheme("mxfp4")) << "what it has anyhow";
}

TEST(Schemes, WhatServersCallThemIsWhatTheyAre) {
  EXPECT_EQ(Scheme("fp8").input.type, InputScheme::Type::kFp8);
  EXPECT_TRUE(Scheme("fp8").input.dynamic);
  EXPECT_EQ(Scheme("fp8").row_block, 1);
  EXPECT_FALSE(Scheme("fp8-static").input.dynamic);
  EXPECT_EQ(Scheme("fp8-static").row_block, QuantScheme::kAllRows);
  EXPECT_EQ(Scheme("fp8-block").row_block, 128);
  EXPECT_EQ(Scheme("fp8-block").group_size, 128);
  EXPECT_EQ(Scheme("fp8-block").input.group_size, 128);
  EXPECT_EQ(Scheme("mxfp4").scale_dtype, DType::kF8E8M0);
  EXPECT_TRUE(Scheme("nvfp4").has_global_scale());
  EXPECT_EQ(Scheme("nvfp4").input.type, InputScheme::Type::kNone);
  EXPECT_EQ(Scheme("nvfp4a4").input.type, InputScheme::Type::kFp4);
  EXPECT_TRUE(Scheme("nvfp4a4").input.has_global_scale());
  EXPECT_EQ(SchemeText(Scheme("nvfp4a4")), "nvfp4a4");
  EXPECT_EQ(Scheme("w8a8").input.type, InputScheme::Type::kInt8);
  EXPECT_FALSE(Scheme("w8a8-static-asym").input.symmetric);
}

TEST(Schemes, ContradictionsSayWhatFits) {
  const auto message = [](const std::string& text) -> std::string {
    try {
      Scheme(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_EQ(error.where(), "w");
      return error.message();
    }
    return "taken";
  };
  EXPECT_NE(message("fp8:asym").find("they fit w2a16"), std::string::npos) << message("fp8:asym");
  EXPECT_NE(message("mxfp4:g64").find("it fits w2a16"), std::string::npos);
  EXPECT_NE(message("w4a61").find("did you mean 'w4a16'"), std::string::npos);
  for (const char* text :
       {"", ":", "w4a16:", "w4a16:g", "w4a16:g0", "w4a16:g-1", "w4a16:64", "w4a16:g64:g64",
        "w4a16:asym:sym", "w4a16:g64x", "W4A16", "w4a16:g99999999999999999999"}) {
    EXPECT_NE(message(text), "taken") << text;
  }
}

TEST(Schemes, ScalesTakeTheDenseTypeButForFp4) {
  const ArtifactWriterFormat& any = FindArtifactFormat("compressed-tensors");
  EXPECT_EQ(ScaleTypeFor(Scheme("w4a16"), any, DType::kBF16), DType::kBF16);
  EXPECT_EQ(ScaleTypeFor(Scheme("fp8"), any, DType::kF16), DType::kF16);
  EXPECT_EQ(ScaleTypeFor(Scheme("w4a16"), any, DType::kF32), DType::kF16);
  EXPECT_EQ(ScaleTypeFor(Scheme("mxfp4"), any, DType::kBF16), DType::kF8E8M0);
  EXPECT_EQ(ScaleTypeFor(Scheme("w4a16"), FindArtifactFormat("gptq"), DType::kBF16), DType::kF16);
  EXPECT_EQ(ScaleTypeFor(Scheme("fp8-block"), FindArtifactFormat("fp8"), DType::kBF16),
            DType::kF32);
}

}  // namespace
}  // namespace quantmill
