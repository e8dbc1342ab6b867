#!/usr/bin/env python3
"""Golden files of the format tests, made by the ecosystem's own libraries.

  make_golden.py           writes tests/formats/golden/ again (and checks the configurations there)
  make_golden.py --check   only checks that compressed-tensors accepts every configuration that our
                           writer makes (golden/config_*.json, written by the tests when the
                           environment variable QUANTMILL_UPDATE_GOLDEN is set)

Needs: pip install torch safetensors compressed-tensors. The output depends on the seed alone.
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import save_file

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


def check_configs():
    for path in sorted(GOLDEN.glob("config_*.json")):
        config = QuantizationConfig.model_validate(json.loads(path.read_text()))
        assert config.quantization_status == "compressed", path
        assert config.format == "pack-quantized", path
        print("accepted:", path.name, list(config.config_groups))


def main():
    if "--check" not in sys.argv:
        GOLDEN.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(20240501)
        write_reference_layout(generator)
        write_packing(generator)
        write_artifact("packed", artifact_schemes(), generator)
    check_configs()


if __name__ == "__main__":
    main()
