#include "quant/pipeline/gguf_output.h"

#include <string_view>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "formats/sha256.h"
#include "kernels/core/error.h"
#include "quant/pipeline/recipe_file.h"

namespace quantmill {
namespace {

std::string_view TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

GgufOutput::GgufOutput(const ModelSource& source, const QuantizePlan& plan,
                       const std::string& output, bool force, int threads)
    : plan_(plan),
      pool_(threads),
      file_(output, force, "GGUF"),
      contents_(source, plan.gguf->layout, plan.gguf->types, plan.recipe.gguf->pre, pool_) {
  file_.RequireSpace(contents_.bytes());
  contents_.AddEntry({"quantmill.version", std::string(QUANTMILL_VERSION)});
  contents_.AddEntry({"quantmill.recipe", RecipeYaml(plan.recipe, "")});
  writer_.emplace(file_.path(), contents_.metadata(), contents_.tensors());
  const std::vector<GgufMatrix>& matrices = contents_.layout().matrices;
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (matrices[i].layer >= 0) matrices_[matrices[i].linear.name] = i;
  }
}

void GgufOutput::Write(const std::string& module, const LayerSolution& solution) {
  const size_t index = matrices_.at(module);
  const GgufMatrix& matrix = contents_.layout().matrices[index];
  const size_t row_bytes = solution.rows.size() / static_cast<size_t>(matrix.linear.out);
  std::vector<std::byte> rows;
  rows.reserve(solution.rows.size());
  for (int64_t row = 0; row < matrix.linear.out; ++row) {
    const auto from =
        static_cast<size_t>(matrix.order.SourceOf(row, matrix.linear.out)) * row_bytes;
    const auto begin = solution.rows.begin() + static_cast<std::ptrdiff_t>(from);
    rows.insert(rows.end(), begin, begin + static_cast<std::ptrdiff_t>(row_bytes));
  }
  contents_.WriteRows(index, rows, *writer_);
  written_[index] = Sha256Hex(TextOf(rows));
}

void GgufOutput::WriteFolding(const BlockSource& block) {
  Check(block.folding().identity(), "nothing is folded for gguf");
}

void GgufOutput::WriteKv(const BlockSpec&, const KvScales&) {
  Check(false, "gguf has no place for the scales of a cache");
}

void GgufOutput::Finish(const std::string&, const QuantizeReport&) {
  for (size_t i = 0; i < contents_.layout().matrices.size(); ++i) {
    if (!written_.contains(i)) contents_.WriteMatrix(i, {}, *writer_);
  }
  contents_.WriteFloats(*writer_);
  writer_->Finish();
}

void GgufOutput::Verify(int,
                        const std::function<void(int64_t, int64_t, const std::string&)>& progress) {
  const GgufFile file = GgufFile::Open(file_.path());
  contents_.ProveHeader(file);
  const std::vector<GgufMatrix>& matrices = contents_.layout().matrices;
  for (size_t i = 0; i < matrices.size(); ++i) {
    progress(static_cast<int64_t>(i), std::ssize(matrices), matrices[i].name);
    const auto written = written_.find(i);
    if (written == written_.end()) {
      contents_.ProveMatrix(i, file);
    } else if (Sha256Hex(TextOf(contents_.RowsOf(i, file))) != written->second) {
      throw Error(ErrorCode::kVerification, matrices[i].name,
                  "is not what was written; nothing was kept. This is a bug of quantmill or of the "
                  "disk");
    }
  }
  contents_.ProveFloats(file);
}

}  // namespace quantmill
