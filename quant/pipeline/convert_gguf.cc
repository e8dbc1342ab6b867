#include "quant/pipeline/convert_gguf.h"

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf/imatrix.h"
#include "formats/single_file_output.h"
#include "kernels/core/error.h"
#include "quant/model/gguf_layout.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/gguf_contents.h"
#include "quant/pipeline/gguf_types.h"
#include "quant/pipeline/stopwatch.h"

namespace quantmill {
namespace {

void CheckOptions(const ModelSource& source, const GgufOptions& options) {
  if (source.checkpoint().is_image()) {
    throw Error(ErrorCode::kUsage, source.path(),
                "is a GGUF file already; to encode it anew, convert it to a folder first (convert "
                "FILE.gguf -o FOLDER)");
  }
  if (source.artifact() == nullptr || (options.type.empty() && options.imatrix.empty())) return;
  throw Error(ErrorCode::kUsage, options.type.empty() ? "--imatrix" : "--gguf-type",
              source.path() +
                  " is quantized already and is repacked as it is; give its dense original to "
                  "quantize that");
}

GgufContents DescribeContents(const ModelSource& source, const GgufOptions& options,
                              ThreadPool& pool) {
  const ConfigReader config(source.checkpoint().config(),
                            (source.checkpoint().folder() / "config.json").string());
  GgufLayout layout = DescribeGguf(source.spec(), config);
  GgufTypes types = source.artifact() != nullptr
                        ? KeepGgufTypes(layout, source, options.embedding_type)
                        : ChooseGgufTypes(layout, options.type.empty() ? "f16" : options.type,
                                          options.embedding_type);
  return {source, std::move(layout), std::move(types), options.pre, pool};
}

// The importance matrix of `path`, which must be of this model; none if it is "".
ImportanceMatrix ReadImportance(const std::string& path, const GgufLayout& layout) {
  if (path.empty()) return {};
  ImportanceMatrix importance = ReadImportanceMatrix(path);
  for (const GgufMatrix& matrix : layout.matrices) {
    const auto entry = importance.entries.find(matrix.name);
    if (entry == importance.entries.end()) {
      if (matrix.layer < 0) continue;  // llama-imatrix leaves embedding and head out
      throw Error(ErrorCode::kBadInput, path,
                  "has no entry " + matrix.name + ": it was made of another model");
    }
    const auto experts = static_cast<size_t>(std::max<int64_t>(1, matrix.experts));
    if (entry->second.matrices() == experts &&
        entry->second.cols() == static_cast<size_t>(matrix.linear.in)) {
      continue;
    }
    throw Error(ErrorCode::kBadInput, path,
                "entry " + matrix.name + " does not have the model's " +
                    std::to_string(matrix.linear.in) + " inputs" +
                    (experts > 1 ? " of " + std::to_string(experts) + " experts" : ""));
  }
  return importance;
}

std::vector<float> ImportanceOf(const GgufMatrix& matrix, const ImportanceMatrix& importance) {
  const auto entry = importance.entries.find(matrix.name);
  if (entry == importance.entries.end()) return {};
  const std::vector<float> means = entry->second.Means();
  const auto begin = means.begin() + matrix.expert * matrix.linear.in;
  return {begin, begin + matrix.linear.in};
}

void Write(const GgufContents& contents, const ImportanceMatrix& importance,
           const std::filesystem::path& path, const ConvertProgress& progress) {
  const std::vector<GgufMatrix>& matrices = contents.layout().matrices;
  GgufWriter writer(path, contents.metadata(), contents.tensors());
  for (size_t i = 0; i < matrices.size(); ++i) {
    progress("converting", static_cast<int64_t>(i), std::ssize(matrices), matrices[i].name);
    contents.WriteMatrix(i, ImportanceOf(matrices[i], importance), writer);
  }
  contents.WriteFloats(writer);
  writer.Finish();
}

void Prove(const GgufContents& contents, const std::filesystem::path& path,
           const ConvertProgress& progress) {
  const std::vector<GgufMatrix>& matrices = contents.layout().matrices;
  const GgufFile file = GgufFile::Open(path);
  contents.ProveHeader(file);
  for (size_t i = 0; i < matrices.size(); ++i) {
    progress("comparing", static_cast<int64_t>(i), std::ssize(matrices), matrices[i].name);
    contents.ProveMatrix(i, file);
  }
  contents.ProveFloats(file);
}

}  // namespace

ConvertReport WriteGguf(const ModelSource& source, const GgufOptions& options,
                        const std::string& output, bool force, ThreadPool& pool,
                        const ConvertProgress& progress) {
  CheckOutputPath(source, output);
  ConvertReport report;
  report.input = source.path();
  report.output = output;
  report.from = source.artifact() != nullptr ? std::string(source.artifact()->format())
                                             : std::string(NameOf(source.dense_dtype()));
  report.input_bytes = source.checkpoint().total_bytes();
  const Stopwatch watch(report.seconds);
  SingleFileOutput file(output, force, "GGUF");
  CheckOptions(source, options);
  const GgufContents contents = DescribeContents(source, options, pool);
  const ImportanceMatrix importance = ReadImportance(options.imatrix, contents.layout());
  file.RequireSpace(contents.bytes());
  Write(contents, importance, file.path(), progress);
  Prove(contents, file.path(), progress);
  file.Commit();
  report.to = "gguf " + contents.types().label;
  report.layers = std::ssize(contents.layout().matrices);
  report.output_bytes = std::filesystem::file_size(output);
  return report;
}

}  // namespace quantmill
