#!/usr/bin/env python3
"""Golden files of the format tests, made by the ecosystem's own libraries.

  make_golden.py           writes tests/formats/golden/ again (and checks the configurations there)
  make_golden.py --check   only checks that compressed-tensors accepts every configuration that our
                           writer makes (golden/config_*.json, written by the tests when the
                           environment variable QUANTMILL_UPDATE_GOLDEN is set)

Needs: pip install torch safetensors transformers compressed-tensors. The output depends on the seed alone.
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

GOLDEN = pathlib.Path(__file__).parent / "golden"


def write_reference_layout(generator):
    """Names and types whose order in the file the reference writer decides."""
    dtypes = [torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn,
              torch.int16, torch.float16, torch.bfloat16, torch.int32, torch.float32,
              torch.complex64, torch.float64, torch.int64]
    tensors = {}
    for i, dtype in enumerate(dtypes):
        name = str(dtype).removeprefix("torch.")
        values = torch.randint(0, 2, (2, i + 1), generator=generator)
        tensors[f"z.{name}"] = values.to(dtype)
        tensors[f"a.{name}"] = values[:1].clone().to(dtype)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 3)
    tensors['quoted "name" \u00e9'] = torch.zeros(1, dtype=torch.uint8)
    save_file(tensors, GOLDEN / "reference.safetensors", metadata={"format": "pt"})


def write_packing(generator):
    """Codes [5, 37] packed along the inputs and zero points [37, 3] packed along the outputs."""
    tensors = {}
    for bits in range(2, 9):
        low, high = -(1 << (bits - 1)), 1 << (bits - 1)
        codes = torch.randint(low, high, (5, 37), generator=generator).to(torch.int8)
        zeros = torch.randint(low, high, (37, 3), generator=generator).to(torch.int8)
        tensors[f"codes{bits}"] = codes
        tensors[f"packed{bits}"] = pack_to_int32(codes, bits)
        tensors[f"zeros{bits}"] = zeros
        tensors[f"packed_zeros{bits}"] = pack_to_int32(zeros, bits, packed_dim=0)
    save_file(tensors, GOLDEN / "packing.safetensors", metadata={"format": "pt"})


def weights_of(scheme):
    return {"num_bits": scheme["bits"], "type": "int", "symmetric": scheme["symmetric"],
            "strategy": "channel" if scheme["group"] is None else "group",
            "group_size": scheme["group"]}


def write_artifact(name, schemes, generator):
    """A folder as the library compresses it, and the weights that the library decodes from it."""
    groups, tensors, expected = {}, {}, {}
    for i, (module, scheme) in enumerate(schemes.items()):
        groups[f"group_{i}"] = {"targets": [module], "weights": weights_of(scheme)}
        config = QuantizationConfig.model_validate({"config_groups": groups})
        quantization = config.config_groups[f"group_{i}"]
        dtype = scheme["dtype"]
        weight = torch.randn(scheme["out"], scheme["in"], generator=generator).to(dtype)
        count = 1 if scheme["group"] is None else scheme["in"] // scheme["group"]
        half = 1 << (scheme["bits"] - 1)
        scale = (torch.rand(scheme["out"], count, generator=generator) + 0.5) * 3 / half
        state = {"weight": weight, "weight_scale": scale.to(dtype)}
        if not scheme["symmetric"]:
            zeros = torch.randint(-half, half, (scheme["out"], count), generator=generator)
            state["weight_zero_point"] = zeros.to(torch.int8)
        packed = PackedQuantizationCompressor.compress(state, quantization)
        decoded = PackedQuantizationCompressor.decompress(packed, quantization)
        for key, value in packed.items():
            tensors[f"{module}.{key}"] = value.contiguous()
        expected[module] = decoded["weight"].contiguous()
    tensors["model.norm.weight"] = torch.ones(8)
    folder = GOLDEN / name
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, GOLDEN / f"{name}_expected.safetensors", metadata={"format": "pt"})
    config = QuantizationConfig.model_validate(
        {"config_groups": groups, "format": "pack-quantized", "ignore": ["lm_head"],
         "quantization_status": "compressed"})
    document = {"architectures": ["LlamaForCausalLM"],
                "quantization_config": json.loads(config.model_dump_json())}
    (folder / "config.json").write_text(json.dumps(document, indent=2) + "\n")


def artifact_schemes():
    dtypes = {2: torch.float32, 3: torch.bfloat16, 4: torch.float16, 8: torch.bfloat16}
    schemes = {}
    for bits, dtype in dtypes.items():
        for symmetric in (True, False):
            kind = "sym" if symmetric else "asym"
            schemes[f"model.w{bits}_{kind}_group"] = {
                "bits": bits, "symmetric": symmetric, "group": 32, "out": 13, "in": 96,
                "dtype": dtype}
            schemes[f"model.w{bits}_{kind}_channel"] = {
                "bits": bits, "symmetric": symmetric, "group": None, "out": 11, "in": 37,
                "dtype": dtype}
    return schemes


def args(**given):
    return {"symmetric": True, "dynamic": False} | given


INT8_TOKEN = args(num_bits=8, type="int", strategy="token", dynamic=True)
FP8_TOKEN = args(num_bits=8, type="float", strategy="token", dynamic=True)
FP8_STATIC = args(num_bits=8, type="float", strategy="tensor")


def layout_schemes():
    """name: out, in, type of the scales, weights, inputs, whether half the scales are negative."""
    int4 = args(num_bits=4, type="int", strategy="group", group_size=32)
    int8 = args(num_bits=8, type="int", strategy="channel")
    fp8 = args(num_bits=8, type="float", strategy="channel")
    fp8_blocks = args(num_bits=8, type="float", strategy="block", block_structure=[8, 16])
    fp8_groups = args(num_bits=8, type="float", strategy="group", group_size=16, dynamic=True)
    int8_static = args(num_bits=8, type="int", strategy="tensor")
    nvfp4 = args(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    mxfp4 = args(num_bits=4, type="float", strategy="group", group_size=32)
    f16, bf16, f32 = torch.float16, torch.bfloat16, torch.float32
    return {
        "model.w4_negative": (7, 96, f16, int4, None, True),
        "model.w8a16_negative": (7, 37, bf16, int8, None, True),
        "model.w8a8": (7, 37, bf16, int8, INT8_TOKEN, False),
        "model.w8a8_negative": (7, 37, f16, int8, INT8_TOKEN, True),
        "model.w8a8_tensor_static": (7, 37, f32, int8 | {"strategy": "tensor"}, int8_static, False),
        "model.w8a8_static_asym": (7, 37, f32, int8, int8_static | {"symmetric": False}, False),
        "model.w8_asym_a8": (7, 37, f16, int8 | {"symmetric": False}, INT8_TOKEN, False),
        "model.fp8": (7, 37, bf16, fp8, FP8_TOKEN, False),
        "model.fp8_static": (7, 37, f16, fp8 | {"strategy": "tensor"}, FP8_STATIC, False),
        "model.fp8_a16": (7, 37, f32, fp8, None, False),
        "model.fp8_block": (19, 48, f32, fp8_blocks, fp8_groups, False),
        "model.fp8_block_ragged": (19, 37, bf16, fp8_blocks, None, False),
        "model.nvfp4": (5, 48, None, nvfp4, None, False),
        "model.mxfp4": (5, 96, None, mxfp4, None, False),
    }


def scale_shape(weights, out, width):
    """As compressed_tensors.quantization.lifecycle.initialize has it."""
    strategy = weights["strategy"]
    if strategy == "tensor":
        return (1,)
    if strategy == "channel":
        return (out, 1)
    if strategy == "block":
        rows, columns = weights["block_structure"]
        return (-(-out // rows), -(-width // columns))
    return (out, width // weights["group_size"])


def module_state(module, case, generator):
    out, width, dtype, weights, inputs, negative = case
    shape = scale_shape(weights, out, width)
    state = {"weight": torch.randn(out, width, generator=generator).to(dtype or torch.float32)}
    largest = 2 ** (weights["num_bits"] - 1)
    if weights["type"] == "float":
        largest = {8: 448, 4: 6}[weights["num_bits"]]
    scale = (torch.rand(shape, generator=generator) + 0.5) * 3 / largest
    if "nvfp4" in module:
        state["weight_global_scale"] = torch.tensor([173.5])
        scale = (scale * 173.5).to(torch.float8_e4m3fn).float()
    elif "mxfp4" in module:
        scale = 2 ** torch.round(torch.log2(scale) + torch.randn(shape, generator=generator))
    else:
        scale = scale.to(dtype)
    if negative:
        scale = scale * (1 - 2 * torch.randint(0, 2, shape, generator=generator)).to(dtype)
    state["weight_scale"] = scale
    if not weights["symmetric"]:
        zeros = torch.randint(-128, 128, shape, generator=generator)
        state["weight_zero_point"] = zeros.to(torch.int8)
    if inputs is not None and not inputs["dynamic"]:
        state["input_scale"] = torch.tensor([0.0123])
        state["input_zero_point"] = torch.tensor([-17], dtype=torch.int8)
    return state


def write_layouts(generator):
    """A module of every layout, each in the format that the library infers for it."""
    groups, tensors, expected = {}, {}, {}
    for i, (module, case) in enumerate(layout_schemes().items()):
        group = {"targets": [module], "weights": case[3], "input_activations": case[4]}
        config = QuantizationConfig.model_validate({"config_groups": {"group": group}})
        scheme = config.config_groups["group"]
        name = infer_module_format(torch.nn.Linear, scheme).value
        compressor = BaseCompressor.get_value_from_registry(name)
        packed = compressor.compress(module_state(module, case, generator), scheme)
        decoded = compressor.decompress(packed, scheme)
        for key, value in packed.items():
            tensors[f"{module}.{key}"] = value.contiguous()
        expected[module] = decoded["weight"].contiguous()
        groups[f"group_{i}"] = group | {"format": name}
    folder = GOLDEN / "layouts"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, GOLDEN / "layouts_expected.safetensors", metadata={"format": "pt"})
    write_config(folder, {"config_groups": groups, "format": "mixed-precision"})


def write_config(folder, given):
    config = QuantizationConfig.model_validate(
        given | {"ignore": ["lm_head"], "quantization_status": "compressed"})
    document = {"architectures": ["LlamaForCausalLM"],
                "quantization_config": json.loads(config.model_dump_json())}
    (folder / "config.json").write_text(json.dumps(document, indent=2) + "\n")


def write_kv_cache(strategy, generator):
    """The scales of a cache as the library names and shapes them, with values of ours."""
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=8))
    given = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": args(
        num_bits=8, type="int", strategy="channel")}}, "format": "pack-quantized",
        "kv_cache_scheme": args(num_bits=8, type="float", strategy=strategy)}
    apply_quantization_config(model, QuantizationConfig.model_validate(given))
    tensors = {name: torch.rand(value.shape, generator=generator) + 0.5
               for name, value in sorted(model.state_dict().items())
               if name.endswith(("k_scale", "v_scale"))}
    folder = GOLDEN / f"kv_{strategy}"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_config(folder, given)


def check_presets(config):
    """Groups of ours that stand for a preset of the library have its arguments."""
    for name, group in config.config_groups.items():
        for preset in ("W8A8", "FP8", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4A16", "MXFP4A16", "W4A16"):
            wanted = preset_name_to_scheme(preset, group.targets)
            for ours, theirs in ((group.weights, wanted.weights),
                                 (group.input_activations, wanted.input_activations)):
                if (ours is None) != (theirs is None):
                    break
                keys = ("num_bits", "type", "symmetric", "group_size", "strategy",
                        "block_structure", "dynamic")
                if ours and any(getattr(ours, key) != getattr(theirs, key) for key in keys):
                    break
            else:
                print("  ", name, "is", preset)
                yield preset


def check_configs():
    for path in sorted(GOLDEN.glob("config_*.json")):
        config = QuantizationConfig.model_validate(json.loads(path.read_text()))
        assert config.quantization_status == "compressed", path
        print("accepted:", path.name, config.format, list(config.config_groups))
        presets = set(check_presets(config))
        if path.name == "config_presets.json":
            assert len(presets) == 7, presets
        for group in config.config_groups.values():
            inferred = infer_module_format(torch.nn.Linear, group).value
            written = group.format or config.format
            assert written == inferred, (path, written, inferred)


def main():
    if "--check" not in sys.argv:
        GOLDEN.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(20240501)
        write_reference_layout(generator)
        write_packing(generator)
        write_artifact("packed", artifact_schemes(), generator)
        write_layouts(generator)
        write_kv_cache("tensor", generator)
        write_kv_cache("attn_head", generator)
    check_configs()


if __name__ == "__main__":
    main()
