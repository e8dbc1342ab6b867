#include "formats/compressed_tensors/args.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace quantmill {
namespace {

using nlohmann::json;

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

// What every set of arguments has, checked for contradictions that the library refuses as well.
struct Args {
  int64_t bits = 0;
  bool is_float = false;
  bool symmetric = true;
  bool dynamic = false;
  bool local = false;  // dynamic scales of groups below a stored one
  std::string strategy;
  std::optional<int64_t> group_size;
};

Args ParseCommon(const ConfigField& field) {
  field.AllowOnly({"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure",
                   "dynamic", "actorder", "scale_dtype", "zp_dtype", "observer",
                   "observer_kwargs"});
  Args args;
  args.bits = field.Integer("num_bits").value_or(8);
  const std::string type = field.Text("type", "int");
  if (type != "int" && type != "float") field.Fail("type", Quoted(type) + " is unknown");
  args.is_float = type == "float";
  args.symmetric = field.Bool("symmetric", true);
  if (args.is_float && !args.symmetric) field.Fail("symmetric", "floats have no zero points");
  const json* dynamic = field.Get("dynamic");
  args.local = dynamic != nullptr && *dynamic == json("local");
  if (dynamic != nullptr && !dynamic->is_boolean() && !args.local) {
    field.Fail("dynamic", dynamic->dump() + " is neither true, false nor \"local\"");
  }
  args.dynamic = args.local || (dynamic != nullptr && dynamic->get<bool>());
  args.group_size = field.Integer("group_size");
  const std::string inferred = !args.group_size       ? "tensor"
                               : *args.group_size > 0 ? "group"
                                                      : "channel";
  args.strategy = field.Text("strategy", inferred);
  const bool grouped = args.strategy == "group" || args.strategy == "tensor_group";
  if (grouped && (!args.group_size || *args.group_size <= 0)) {
    field.Fail("group_size", "must be positive for groups");
  }
  if (!grouped && args.group_size && *args.group_size != -1) {
    field.Fail("group_size", "is not of strategy " + Quoted(args.strategy));
  }
  if (args.strategy != "block") field.MustBeEmpty("block_structure", "a block structure");
  return args;
}

// [rows, columns], or the older "128x128".
void ParseBlocks(const ConfigField& field, QuantScheme& scheme) {
  const json* structure = field.Get("block_structure");
  if (structure == nullptr) field.Fail("block_structure", "is missing");
  const auto fail = [&] {
    field.Fail("block_structure", structure->dump() + " is no pair of positive sizes");
  };
  int64_t sizes[2] = {0, 0};
  if (structure->is_string()) {
    const auto text = structure->get<std::string>();
    char end = 0;
    if (std::sscanf(text.c_str(), "%9ldx%9ld%c", &sizes[0], &sizes[1], &end) != 2) fail();
  } else {
    if (!structure->is_array() || structure->size() != 2) fail();
    for (size_t i = 0; i < 2; ++i) {
      if (!(*structure)[i].is_number_integer()) fail();
      sizes[i] = (*structure)[i].get<int64_t>();
    }
  }
  constexpr int64_t kMax = int64_t{1} << 28;
  if (sizes[0] < 1 || sizes[1] < 1 || sizes[0] > kMax || sizes[1] > kMax) fail();
  scheme.row_block = sizes[0];
  scheme.group_size = sizes[1];
}

QuantScheme ParseIntegers(const ConfigField& field, const Args& args) {
  if (args.bits < 2 || args.bits > 8) {
    field.Fail("num_bits", "must be 2 to 8, not " + std::to_string(args.bits));
  }
  QuantScheme scheme;
  scheme.bits = static_cast<int>(args.bits);
  scheme.symmetric = args.symmetric;
  scheme.group_size = QuantScheme::kPerChannel;
  scheme.scale_dtype = DType::kF32;
  if (args.strategy == "group") {
    scheme.group_size = *args.group_size;
  } else if (args.strategy == "tensor") {
    scheme.row_block = QuantScheme::kAllRows;
  } else if (args.strategy != "channel") {
    field.Fail("strategy",
               Quoted(args.strategy) + " cannot be read for integers, only group, channel, tensor");
  }
  return scheme;
}

constexpr std::string_view kE4M3Scales = "torch.float8_e4m3fn";
constexpr std::string_view kPowerScales = "torch.uint8";

// Floats of 8 bits in groups whose scales are powers of two (MXFP8). Those of 4 bits need not say
// it.
bool HasPowerScales(const ConfigField& field, const Args& args) {
  return args.strategy == "group" && field.Text("scale_dtype", "") == kPowerScales;
}

// Of groups whose scales are rounded: NVFP4 (strategy tensor_group), MXFP4, MXFP8.
struct BlockScales {
  int64_t group_size = 0;
  DType dtype = DType::kF32;
};
BlockScales ParseBlockScales(const ConfigField& field, const Args& args) {
  const bool nvidia = args.strategy == "tensor_group" && args.bits == 4;
  const std::string name = "FP" + std::to_string(args.bits);
  if (!nvidia && args.strategy != "group") {
    field.Fail("strategy", Quoted(args.strategy) + " cannot be read for " + name +
                               ", only tensor_group and group");
  }
  const int64_t wanted = nvidia ? 16 : 32;
  if (*args.group_size != wanted) {
    field.Fail("group_size", "must be " + std::to_string(wanted) + " for " + name +
                                 " of strategy " + Quoted(args.strategy));
  }
  const std::string type(nvidia ? kE4M3Scales : kPowerScales);
  if (const std::string given = field.Text("scale_dtype", type); given != type) {
    field.Fail("scale_dtype", Quoted(given) + " cannot be read, only " + type);
  }
  return {wanted, nvidia ? DType::kF8E4M3 : DType::kF8E8M0};
}

QuantScheme ParseFp8(const ConfigField& field, const Args& args) {
  QuantScheme scheme;
  scheme.bits = 8;
  scheme.code_type = CodeType::kFp8;
  scheme.group_size = QuantScheme::kPerChannel;
  scheme.scale_dtype = DType::kF32;
  if (HasPowerScales(field, args)) {
    const BlockScales scales = ParseBlockScales(field, args);
    scheme.group_size = scales.group_size;
    scheme.scale_dtype = scales.dtype;
  } else if (args.strategy == "block") {
    ParseBlocks(field, scheme);
  } else if (args.strategy == "tensor") {
    scheme.row_block = QuantScheme::kAllRows;
  } else if (args.strategy != "channel") {
    field.Fail("strategy",
               Quoted(args.strategy) + " cannot be read for FP8, only channel, tensor, block");
  }
  return scheme;
}

QuantScheme ParseFp4(const ConfigField& field, const Args& args) {
  QuantScheme scheme;
  scheme.bits = 4;
  scheme.code_type = CodeType::kFp4;
  const BlockScales scales = ParseBlockScales(field, args);
  scheme.group_size = scales.group_size;
  scheme.scale_dtype = scales.dtype;
  return scheme;
}

// Inputs of groups whose scales are rounded.
InputScheme ParseBlockScaledInputs(const ConfigField& field, const Args& args) {
  const BlockScales scales = ParseBlockScales(field, args);
  const bool nvidia = scales.dtype == DType::kF8E4M3;
  if (!args.dynamic || args.local != nvidia) {
    field.Fail("dynamic", std::string("must be ") + (nvidia ? "\"local\"" : "true") +
                              " for inputs of FP" + std::to_string(args.bits) + " of strategy " +
                              Quoted(args.strategy));
  }
  InputScheme input;
  input.type = args.bits == 4 ? InputScheme::Type::kFp4 : InputScheme::Type::kFp8;
  input.group_size = scales.group_size;
  input.scale_dtype = scales.dtype;
  return input;
}

json CommonArgs(int bits, bool is_float, bool symmetric, const std::string& strategy,
                bool dynamic) {
  // Only keys that every release of the library knows: an unknown one is an error to it.
  return {{"num_bits", bits},       {"type", is_float ? "float" : "int"},
          {"symmetric", symmetric}, {"group_size", nullptr},
          {"strategy", strategy},   {"dynamic", dynamic}};
}

}  // namespace

QuantScheme ParseWeightArgs(const ConfigField& field) {
  const Args args = ParseCommon(field);
  if (args.dynamic) field.Fail("dynamic", "weights are static");
  if (!args.is_float) return ParseIntegers(field, args);
  if (args.bits == 8) return ParseFp8(field, args);
  if (args.bits == 4) return ParseFp4(field, args);
  field.Fail("num_bits",
             "floats of " + std::to_string(args.bits) + " bits cannot be read, only of 8 and 4");
}

bool ParseActOrder(const ConfigField& field) {
  const json* order = field.Get("actorder");
  if (order == nullptr || *order == json(false)) return false;
  const std::string name = order->is_string() ? field.Text("actorder", "") : order->dump();
  // "weight" (alias "static") orders columns while quantizing only; the file is as without.
  if (name == "weight" || name == "static") return false;
  if (name != "group" && name != "dynamic") field.Fail("actorder", Quoted(name) + " is unknown");
  const Args args = ParseCommon(field);
  if (args.is_float || args.strategy != "group") {
    field.Fail("actorder", Quoted(name) + " can be read for integers of strategy 'group' alone");
  }
  return true;
}

InputScheme ParseInputArgs(const ConfigField& field) {
  const Args args = ParseCommon(field);
  if (args.is_float && (args.bits == 4 || (args.bits == 8 && HasPowerScales(field, args)))) {
    return ParseBlockScaledInputs(field, args);
  }
  if (args.bits != 8) {
    field.Fail("num_bits", std::string(args.is_float ? "floats" : "integers") + " of " +
                               std::to_string(args.bits) + " bits cannot be read as inputs");
  }
  if (args.local) field.Fail("dynamic", "\"local\" can be read for inputs of FP4 alone");
  InputScheme input;
  input.type = args.is_float ? InputScheme::Type::kFp8 : InputScheme::Type::kInt8;
  input.dynamic = args.dynamic;
  input.symmetric = args.symmetric;
  if (args.dynamic && !args.symmetric) {
    field.Fail("symmetric", "dynamic inputs with zero points cannot be read");
  }
  if (args.strategy == "group" && args.dynamic) {
    input.group_size = *args.group_size;
  } else if (args.strategy != (args.dynamic ? "token" : "tensor")) {
    field.Fail("strategy", Quoted(args.strategy) + " cannot be read for " +
                               (args.dynamic ? "dynamic" : "static") + " inputs, only " +
                               (args.dynamic ? "token and group" : "tensor"));
  }
  return input;
}

KvScheme ParseKvArgs(const ConfigField& field) {
  const Args args = ParseCommon(field);
  if (!args.is_float || args.bits != 8) {
    field.Fail("num_bits", "a cache of other numbers than 8-bit floats cannot be read");
  }
  if (args.dynamic) field.Fail("dynamic", "scales of the cache must be stored");
  if (args.strategy != "tensor" && args.strategy != "attn_head") {
    field.Fail("strategy", Quoted(args.strategy) + " cannot be read, only tensor and attn_head");
  }
  return {KvScheme::Type::kFp8, args.strategy == "attn_head"};
}

json WeightArgs(const QuantScheme& scheme) {
  const bool is_float = scheme.code_type != CodeType::kInt;
  json args = CommonArgs(scheme.bits, is_float, scheme.symmetric, "channel", false);
  if (scheme.row_block == QuantScheme::kAllRows) {
    args["strategy"] = "tensor";
  } else if (scheme.row_block > 1) {
    args["strategy"] = "block";
    args["block_structure"] = {scheme.row_block, scheme.group_size};
  } else if (scheme.group_size != QuantScheme::kPerChannel) {
    args["strategy"] = scheme.has_global_scale() ? "tensor_group" : "group";
    args["group_size"] = scheme.group_size;
  }
  if (scheme.code_type == CodeType::kFp8 && scheme.scale_dtype == DType::kF8E8M0) {
    args["scale_dtype"] = kPowerScales;  // a release that does not know the key knows no MXFP8
  }
  return args;
}

json InputArgs(const InputScheme& input) {
  if (input.type == InputScheme::Type::kNone) return nullptr;
  const bool is_float = input.type != InputScheme::Type::kInt8;
  const bool is_fp4 = input.type == InputScheme::Type::kFp4;
  json args = CommonArgs(is_fp4 ? 4 : 8, is_float, input.symmetric,
                         input.dynamic ? "token" : "tensor", input.dynamic);
  if (input.dynamic && input.group_size != InputScheme::kPerToken) {
    args["strategy"] = input.has_global_scale() ? "tensor_group" : "group";
    args["group_size"] = input.group_size;
  }
  if (input.has_global_scale()) args["dynamic"] = "local";
  if (input.has_block_scales()) {
    args["scale_dtype"] = input.has_global_scale() ? kE4M3Scales : kPowerScales;
  }
  return args;
}

json KvArgs(const KvScheme& kv) {
  if (kv.type == KvScheme::Type::kNone) return nullptr;
  return CommonArgs(8, true, true, kv.per_head ? "attn_head" : "tensor", false);
}

}  // namespace quantmill
