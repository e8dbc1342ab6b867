// What readers have in common whose files say what is quantized by the tensors they hold.
// Private to formats/.
#ifndef QUANTMILL_FORMATS_MODULE_READER_H_
#define QUANTMILL_FORMATS_MODULE_READER_H_

#include <string>
#include <string_view>
#include <vector>

#include "formats/artifact.h"
#include "formats/module_tensors.h"

namespace quantmill {

// Derived classes say what a module is; this one finds modules and checks the file.
class ModuleReader : public ArtifactReader {
 public:
  const std::vector<std::string>& modules() const final { return modules_; }
  std::optional<QuantScheme> SchemeOf(const std::string& module) const final;
  QuantizedModule Describe(const std::string& module) const final;
  void ReadRows(const QuantizedModule& module, RowRange range, QuantizedLinear& rows) const final;
  void ReadWords(const QuantizedModule& module, RowRange range, RowBand& band) const final;
  std::vector<std::string> TensorsOf(const std::string& module) const final;
  std::vector<TensorProblem> CheckTensors() const final;

  // None of these formats speaks of a cache.
  KvScheme kv_scheme() const final { return {}; }
  KvScales ReadKv(const std::string& attention, int64_t kv_heads) const final;
  std::vector<std::string> KvTensorsOf(const std::string&) const final { return {}; }

 protected:
  // suffixes: of a module's tensors, first that of the codes, where it is of type `code_type` (any,
  // if empty).
  ModuleReader(const Checkpoint& checkpoint, std::vector<std::string_view> suffixes,
               std::string_view code_type = "");

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const std::string& config_path() const { return config_path_; }

  virtual std::string_view ScaleSuffix(const ModuleTensors& tensors) const = 0;
  // The scheme of a module that has codes, its scale type aside. Error(kBadInput) if the
  // configuration excludes it.
  virtual QuantScheme StoredScheme(const ModuleTensors& tensors) const = 0;
  // {out, in}, checked to be possible.
  virtual std::pair<int64_t, int64_t> ReadShape(const ModuleTensors& tensors,
                                                const QuantScheme& scheme) const = 0;
  // Rows of `module`. `rows` comes from StartRows; fills codes, scales, zero points.
  virtual void ReadInto(const ModuleTensors& tensors, const QuantizedModule& module, RowRange range,
                        QuantizedLinear& rows) const = 0;
  // The same of words instead of codes, where HasWords says that there are any.
  virtual void ReadWordsInto(const ModuleTensors& tensors, const QuantizedModule& module,
                             RowRange range, RowBand& band) const;

 private:
  void StartReading(const QuantizedModule& module, RowRange range, QuantizedLinear& rows) const;
  std::string OwnerOf(const std::string& tensor) const;
  void CheckModule(const std::string& module, std::vector<TensorProblem>& problems) const;

  const Checkpoint& checkpoint_;
  std::string config_path_;
  std::vector<std::string_view> suffixes_;
  std::vector<std::string> modules_;  // sorted
};

// A writer of a format that has no scales of a cache.
class WriterWithoutCache : public ArtifactWriterFormat {
 public:
  void CheckSupportedKv(const KvScheme& kv) const final;
  std::vector<TensorDeclaration> DeclareKv(const std::string&, const KvScheme& kv,
                                           int64_t) const final;
  void WriteKv(const std::string&, const KvScales&, CheckpointWriter&) const final;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_MODULE_READER_H_
