// What one GGUF file of a model holds, and how its parts are written and proven: shared by convert,
// which writes all of it, and quantize, which brings the rows of its layers.
#ifndef QUANTMILL_QUANT_PIPELINE_GGUF_CONTENTS_H_
#define QUANTMILL_QUANT_PIPELINE_GGUF_CONTENTS_H_

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/gguf_layout.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/gguf_types.h"

namespace quantmill {

// Borrows source and pool.
class GgufContents {
 public:
  // types: of layout.matrices. pre: tokenizer.ggml.pre; "": found from tokenizer.json. Throws
  // Error(kUsage) for a cache or tensor that the file has no place for, and what DescribeVocabulary
  // throws.
  GgufContents(const ModelSource& source, GgufLayout layout, GgufTypes types,
               const std::string& pre, ThreadPool& pool);

  const GgufLayout& layout() const { return layout_; }
  const GgufTypes& types() const { return types_; }
  const std::vector<GgufEntry>& metadata() const { return metadata_; }
  const std::vector<GgufDeclaration>& tensors() const { return tensors_; }
  uint64_t bytes() const;  // of the tensors

  // Adds to the metadata. Before the file is written.
  void AddEntry(GgufEntry entry) { metadata_.push_back(std::move(entry)); }

  // Rows of layout.matrices[index]: the codes of an artifact repacked, dense values encoded.
  // importance: of the inputs, or empty.
  void WriteMatrix(size_t index, std::span<const float> importance, GgufWriter& writer) const;
  void WriteFloats(GgufWriter& writer) const;
  // All rows of layout.matrices[index], encoded. rows: as many bytes as they take.
  void WriteRows(size_t index, std::span<const std::byte> rows, GgufWriter& writer) const;
  // Those rows in a file that was written, whose header is proven.
  std::span<const std::byte> RowsOf(size_t index, const GgufFile& file) const;

  // Of a file that was written: everything is there and has the source's values, exactly where
  // nothing was rounded. Throws Error(kVerification); Error(kBadInput) for values that a type does
  // not reach.
  void ProveHeader(const GgufFile& file) const;
  void ProveMatrix(size_t index, const GgufFile& file) const;
  void ProveFloats(const GgufFile& file) const;

 private:
  void CheckSource() const;
  void DescribeFile(const std::string& pre);
  std::vector<float> FloatsOf(const GgufFloats& floats) const;
  uint64_t RowBytesOf(size_t index) const;

  const ModelSource& source_;
  GgufLayout layout_;
  GgufTypes types_;
  ThreadPool& pool_;
  std::vector<GgufEntry> metadata_;
  std::vector<GgufDeclaration> tensors_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_GGUF_CONTENTS_H_
