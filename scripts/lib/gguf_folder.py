"""A folder that `quantmill convert MODEL.gguf` wrote, against what gguf-py reads in the file."""
import gguf
import numpy
from safetensors import safe_open

# GGUF: Hugging Face, within a block
BLOCK_TENSORS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm",
                 "output": "lm_head"}


def _half_split_rows(weight, heads):
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


class _File:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        architecture = reader.get_field("general.architecture").contents()
        self.heads = {}
        if architecture == "llama":  # the others keep their rows
            for name, key in (("attn_q", "head_count"), ("attn_k", "head_count_kv")):
                self.heads[name] = reader.get_field(f"llama.attention.{key}").contents()

    def names(self):
        """(GGUF, Hugging Face) of every tensor but rope_freqs."""
        for name in self.tensors:
            stem, kind = name.rsplit(".", 1)
            if stem.startswith("blk."):
                _, layer, short = stem.split(".")
                yield name, f"model.layers.{layer}.{BLOCK_TENSORS[short]}.{kind}"
            elif stem != "rope_freqs":
                yield name, f"{OUTER_TENSORS[stem]}.{kind}"

    def values(self, name):
        tensor = self.tensors[name]
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        short = name.split(".")[-2]
        return _half_split_rows(values, self.heads[short]) if short in self.heads else values


TYPES = {"F32": numpy.float32, "F16": numpy.float16}  # numpy has no BF16


def differences(path, folder):
    """Names of tensors that are not, bit for bit, gguf-py's values rounded to the folder's types."""
    file = _File(path)
    wrong = []
    with safe_open(folder / "model.safetensors", "np") as weights:
        left = set(weights.keys())
        for name, ours in file.names():
            if ours not in left:
                wrong.append(ours)
                continue
            left.discard(ours)
            part = weights.get_slice(ours)
            wanted = file.values(name).astype(TYPES[part.get_dtype()])
            found = part[:]
            if wanted.shape != found.shape or wanted.tobytes() != found.tobytes():
                wrong.append(ours)
    return len(list(file.names())), wrong + sorted(left)
