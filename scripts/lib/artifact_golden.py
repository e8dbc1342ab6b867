"""Golden models (tests/quant/runtime/golden) as artifacts, in readers that are not ours. Wants torch."""
import json

import compressed_tensors
import numpy as np
import packed_readers
import torch
import transformers
from demands import Refused, demand
from llamacpp_golden import LIMIT, OUT, log_probs, of_targets, quantmill
from safetensors.torch import load_file
from transformers.utils.quantization_config import CompressedTensorsConfig

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def quantize(model, name, *flags):
    """Rounded to 4 bits, in the largest groups that fit; (folder, group size)."""
    folder = OUT / name
    for group in (32, 16, 8, 4):
        try:
            quantmill("quantize", model, "-o", folder, "--force", "--method", "rtn", "--scheme",
                      f"w4a16:g{group}" + (":asym" if name == "awq" else ""), *flags)
            return folder, group
        except Refused as refused:
            if "group" not in str(refused) or group == 4:
                raise
    raise AssertionError


def dequantized(artifact, dtype):
    folder = OUT / f"dense_{dtype}"
    quantmill("convert", artifact, "-o", folder, "--force", "--dequantize", dtype)
    return folder


def load(folder, **options):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        demand(not info[kind], f"{kind}: {sorted(info[kind])[:5]}")
    return model.float().eval()


def transformers_reads(model):
    ids = load_file(model / "expected.safetensors")["ids"].flatten().tolist()
    artifact, group = quantize(model, "compressed-tensors", "--target", "transformers")
    twin = dequantized(artifact, "f16")
    ours = load(twin, dtype=torch.float32)
    try:
        theirs = load(artifact, quantization_config=CompressedTensorsConfig(dequantize=True))
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Refused(f"transformers: {type(error).__name__}: {str(error).splitlines()[0]}")
    wanted, found = ours.state_dict(), theirs.state_dict()
    demand(wanted.keys() == found.keys(), "decodes to other tensors")
    wrong = [name for name in wanted if not torch.equal(wanted[name], found[name])]
    demand(not wrong, f"{len(wrong)} tensors decode to other values: {wrong[:3]}")
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0]
    difference = np.abs(of_targets(logits, ids) - log_probs(twin, ids)).max()
    demand(difference < LIMIT, f"log-probabilities differ by {difference:.1e}")
    return f"g{group}: {len(wanted)} tensors equal, log-probabilities within {difference:.0e}"


def packed_reads(model, name, decode):
    artifact, group = quantize(model, name, "--format", name)
    config = json.loads((artifact / "config.json").read_text())["quantization_config"]
    stored = load_file(artifact / "model.safetensors")
    wanted = load_file(dequantized(artifact, "f32") / "model.safetensors")
    modules = [key.removesuffix(".qweight") for key in stored if key.endswith(".qweight")]
    demand(modules, "no quantized layer")
    for module in modules:
        # GPT-2's dense weights are stored [inputs, outputs].
        weight = wanted[f"{module}.weight"]
        values = decode(stored, module, config)
        transposed = model.name == "gpt2"
        demand(torch.equal(values, weight.T if transposed else weight),
               f"{module} decodes to other values")
    return f"g{group}: {len(modules)} layers equal"


def columns():
    """By the format: (what reads it, check(model) -> text of a cell)."""
    return {
        "compressed-tensors": (f"transformers {transformers.__version__}, compressed-tensors "
                               f"{compressed_tensors.__version__}", transformers_reads),
        "gptq": (packed_readers.GPTQMODEL, lambda model: packed_reads(
            model, "gptq", packed_readers.decode_gptq)),
        "awq": (packed_readers.AUTOAWQ, lambda model: packed_reads(
            model, "awq", packed_readers.decode_awq)),
    }
