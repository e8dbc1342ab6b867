"""Golden models (tests/quant/runtime/golden) in llama.cpp itself: does its graph compute the same?"""
import json
import re
import shutil

import demands
import llamacpp
import measured_run
import numpy as np
from demands import Refused, demand
from safetensors.numpy import load_file, save_file

OUT = measured_run.ROOT / "build" / "compatibility"
LIMIT = 3e-4  # of natural log-probabilities, both computed in F32
# llama.cpp looks GELU up in a table of F16 numbers, by the tanh form: each activation is off by
# some 2^-11 of itself. What is left out or in the wrong order differs by more than 0.1.
GELU_LIMIT = 0.02


def quantmill(*arguments):
    folder = OUT / "with_tokenizer"
    demands.quantmill(*arguments, "--quiet", folders=(folder.relative_to(measured_run.ROOT), folder))


def log_probs(model, ids):
    """quantmill's, of ids[1:]."""
    tokens, scores = OUT / "tokens.json", OUT / "log_probs.json"
    tokens.write_text(json.dumps(ids))
    quantmill("eval", model, "--tokens-file", tokens, "--window", len(ids), "--max-windows", 1,
              "--compute", "f32", "--log-probs", scores, "--json")
    return np.array(json.loads(scores.read_text())[0])


def of_targets(logits, ids):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    values = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return values[np.arange(len(ids) - 1), ids[1:]]


def layers(*kept):
    """Keeps these layers alone, of a model whose others llama.cpp does not have."""
    def change(tensors):
        moved = {}
        for name, values in tensors.items():
            found = re.fullmatch(r"(model\.layers\.)(\d+)(\..*)", name)
            if not found:
                moved[name] = values
            elif int(found[2]) in kept:
                moved[f"{found[1]}{kept.index(int(found[2]))}{found[3]}"] = values
        return moved
    return change


def zero_biases(tensors):
    """Of attention, for a model without."""
    added = {}
    for name, values in tensors.items():
        if re.search(r"\.attention\.(query_key_value|dense)\.weight$", name):
            added[name.replace(".weight", ".bias")] = np.zeros(len(values), values.dtype)
    return tensors | added


# Models that llama.cpp has not, and the nearest that it has: (how it differs, keys of config.json,
# tensors).
VARIATIONS = {
    "gpt_neox_sequential": ("biases of 0", {"attention_bias": True}, zero_biases),
    "gemma2": ("query_pre_attn_scalar 16", {"query_pre_attn_scalar": 16}, None),
    "gemma3": ("query_pre_attn_scalar 16", {"query_pre_attn_scalar": 16}, None),
    "qwen2_moe": ("its mixture alone", {"num_hidden_layers": 1, "decoder_sparse_step": 1},
                  layers(1)),
    "qwen3_moe": ("its mixtures alone", {"num_hidden_layers": 2, "mlp_only_layers": []},
                  layers(0, 2)),
}

# Its contexts are of 256 tokens or more, and those that reach past the original one have the long
# factors for all tokens.
LONG_CONTEXT = {"phi3_short_rope": (
    "original context 512", {"original_max_position_embeddings": 512,
                             "max_position_embeddings": 1024}, None)}


def with_tokenizer(model, keys, change):
    """A copy of the model with a tokenizer of as many tokens as the embedding has rows."""
    folder = OUT / "with_tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    (folder / "expected.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(config))
    if change:
        weights = folder / "model.safetensors"
        save_file(change(load_file(weights)), weights, {"format": "pt"})
    vocab = {"<s>": 0, "a": 1, "b": 2, "ab": 3, "\u010a": 4}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "normalizer": None, "pre_tokenizer": level, "post_processor": None,
        "decoder": level, "added_tokens": [
            {"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}],
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>"}))
    return folder, config


def compare(model, ids, keys, change):
    source, config = with_tokenizer(model, keys, change)
    file = OUT / "model.gguf"
    quantmill("plan", source, "--format", "gguf", "--target", "llama.cpp", "--method", "rtn")
    quantmill("convert", source, "-o", file, "--force", "--format", "gguf", "--gguf-type", "f32")
    ignored = config["model_type"] in ("mistral", "phi3") or config.get("use_sliding_window")
    if ignored and config.get("sliding_window"):
        ids = ids[:config["sliding_window"]]
    silu = config["model_type"] in ("llama", "mistral", "mixtral", "phi3") or "qwen" in config[
        "model_type"]
    limit = LIMIT if silu else GELU_LIMIT
    logits = llamacpp.Model(file, len(ids), 2, exact_attention=True).logits(ids, 0)
    theirs = of_targets(logits, ids)
    difference = np.abs(theirs - log_probs(source, ids)).max()
    demand(difference < limit, f"log-probabilities differ by {difference:.1e}")
    again = np.abs(theirs - log_probs(file, ids)).max()
    demand(again < limit, f"those of the file as we read it differ by {again:.1e}")
    return f"log-probabilities of {len(ids) - 1} tokens within {difference:.0e}"


def check(model):
    """The text of a cell of docs/compatibility.md."""
    ids = load_file(model / "expected.safetensors")["ids"].flatten().tolist()
    if model.name in LONG_CONTEXT:
        how, keys, change = LONG_CONTEXT[model.name]
        return f"{how}: {compare(model, ids, keys, change)}"
    try:
        return compare(model, ids, {}, None)
    except Refused as refused:
        if model.name in VARIATIONS:
            how, keys, change = VARIATIONS[model.name]
            try:
                refused.instead = f"; {how}: {compare(model, ids, keys, change)}"
            except Refused as again:
                raise Failure(f"{how}: {again}") from again
        raise
