#!/usr/bin/env python3
"""Make the golden models of decoder_golden_test: tiny random decoders and their logits.

For each configuration below: golden/<name>/{config.json, model.safetensors, expected.safetensors}.
Weights are F16 on disk; logits are computed by transformers in float32 from exactly those values,
with its eager attention. Weights are scaled so that logits spread, norms and biases are randomised,
so that a feature that is ignored (a window, a bias, a norm, a rope scaling) changes the logits.

Needs: pip install torch transformers safetensors. Usage: make_golden.py [OUT [NAME...]]
"""
import copy
import json
import os
import shutil
import sys
import tempfile
import zlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = 48
BASE = dict(hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=96, max_position_embeddings=128,
            tie_word_embeddings=False, torch_dtype="float16", bos_token_id=1, eos_token_id=2)

LONG_ROPE = dict(num_hidden_layers=1, pad_token_id=0, rope_scaling=dict(
    type="longrope", short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.0, 1.7, 2.9, 4.0]))
CONFIGS = {
    "llama_gqa": ("llama", dict(rms_norm_eps=1e-5)),
    "llama_mha_tied_bias": ("llama", dict(num_key_value_heads=4, tie_word_embeddings=True,
                                          attention_bias=True, mlp_bias=True)),
    "llama_mqa": ("llama", dict(num_key_value_heads=1, rms_norm_eps=1e-6)),
    "llama_rope_llama3": ("llama", dict(rope_theta=500.0, rope_scaling=dict(
        rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32))),
    "llama_rope_linear": ("llama", dict(rope_scaling=dict(rope_type="linear", factor=3.0))),
    "llama_rope_yarn": ("llama", dict(rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32))),
    "mistral_window": ("mistral", dict(sliding_window=7, head_dim=8)),
    "qwen2": ("qwen2", dict(use_sliding_window=False)),
    "qwen2_window": ("qwen2", dict(use_sliding_window=True, sliding_window=5,
                                   max_window_layers=1)),
    "qwen3": ("qwen3", dict(head_dim=16, rms_norm_eps=1e-6)),
    "phi3": ("phi3", dict(sliding_window=9, partial_rotary_factor=0.5, pad_token_id=0)),
    # 48 tokens are within the original context of the first, and beyond that of the second.
    "phi3_short_rope": ("phi3", LONG_ROPE | dict(original_max_position_embeddings=64)),
    "phi3_long_rope": ("phi3", LONG_ROPE | dict(original_max_position_embeddings=32)),
    "gemma2": ("gemma2", dict(head_dim=16, query_pre_attn_scalar=24, attn_logit_softcapping=2.0,
                              final_logit_softcapping=6.0, sliding_window=9, pad_token_id=0,
                              hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True)),
    "gemma3": ("gemma3_text", dict(head_dim=16, query_pre_attn_scalar=24, sliding_window=7,
                                   num_hidden_layers=3, sliding_window_pattern=3, pad_token_id=0,
                                   rope_theta=1000.0, rope_local_base_freq=50.0,
                                   rope_scaling=dict(rope_type="linear", factor=3.0),
                                   tie_word_embeddings=True)),
    "mixtral": ("mixtral", dict(intermediate_size=32, num_local_experts=4, num_experts_per_tok=2,
                                rms_norm_eps=1e-5, rope_theta=1000000.0)),
    "qwen2_moe": ("qwen2_moe", dict(decoder_sparse_step=2, moe_intermediate_size=32, num_experts=6,
                                    num_experts_per_tok=3, norm_topk_prob=False,
                                    shared_expert_intermediate_size=48)),
    "qwen3_moe": ("qwen3_moe", dict(head_dim=16, num_hidden_layers=3, mlp_only_layers=[1],
                                    moe_intermediate_size=32, num_experts=8, num_experts_per_tok=3,
                                    norm_topk_prob=True)),
}
# So many models have their position for a seed; the others a hash of their names, so that one can
# be added anywhere.
NUMBERED = 10

# Families with keys of their own; `drop`: a prefix that the names of their tensors lack in the
# file, as some checkpoints have it.
OPT = dict(hidden_size=32, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=96,
           max_position_embeddings=64, bos_token_id=2, eos_token_id=2, pad_token_id=1)
GPT2 = dict(n_embd=32, n_head=4, n_layer=2, n_positions=64, vocab_size=96, bos_token_id=1,
            eos_token_id=2)
NEOX = dict(hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
            vocab_size=96, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
FALCON = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=96,
              bos_token_id=1, eos_token_id=2)
BLOOM = dict(hidden_size=24, n_layer=2, n_head=3, vocab_size=96, bos_token_id=1, eos_token_id=2)
OWN_KEYS = {
    "opt": ("opt", OPT, ""),
    "opt_350m": ("opt", OPT | dict(do_layer_norm_before=False, word_embed_proj_dim=20,
                                   num_hidden_layers=3), "model."),
    "gpt2": ("gpt2", GPT2, "transformer."),
    "gpt_neox": ("gpt_neox", NEOX | dict(rotary_pct=0.25, rotary_emb_base=500), ""),
    "gpt_neox_sequential": ("gpt_neox", NEOX | dict(use_parallel_residual=False, rotary_pct=0.5,
                                                    attention_bias=False), ""),
    "falcon_7b": ("falcon", FALCON | dict(ffn_hidden_size=96), ""),
    "falcon_40b": ("falcon", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2,
                                           ffn_hidden_size=96, tie_word_embeddings=False), ""),
    "falcon_11b": ("falcon", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2,
                                           num_ln_in_parallel_attn=1, ffn_hidden_size=96), ""),
    "falcon_rw": ("falcon", FALCON | dict(alibi=True, bias=True, multi_query=False,
                                          parallel_attn=False, ffn_hidden_size=96), ""),
    "bloom": ("bloom", BLOOM, ""),
}


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    gain_center = 0.0 if model.config.model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("bias"):
                p.copy_(0.5 * noise)
            elif p.dim() == 1:  # a norm
                p.copy_(gain_center + 0.3 * noise)
            elif "embed" in name or ".wte." in name or ".wpe." in name:
                p.copy_(noise)
            else:
                inputs = p.shape[0] if ".c_" in name else p.shape[-1]  # GPT-2's are [in, out]
                p.copy_(1.7 * noise / inputs ** 0.5)
            p.copy_(p.half().float())
        # As it is in a model that is loaded in the type of its file.
        for name, buffer in model.named_buffers():
            if name.endswith("embed_scale"):
                buffer.copy_(buffer.half().float())


def checkpoint_tensors(model):
    """By the names of checkpoints: transformers stacks experts in memory, and undoes it to save."""
    if not any(".experts." in name for name, _ in model.named_parameters()):
        return model.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(os.path.join(folder, "model.safetensors"))


def make(out, name, family, written, seed, drop=""):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(family, **copy.deepcopy(written))
    # Falcon's eager attention adds ALiBi twice (to the scores and, by way of the mask, once more).
    config._attn_implementation = "sdpa" if written.get("alibi") else "eager"
    model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32).eval()
    randomise(model, seed)
    ids = torch.randint(0, written["vocab_size"], (1, TOKENS),
                        generator=torch.Generator().manual_seed(seed + 1000))
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    os.makedirs(folder)
    # transformers 5 calls the head of GPT-NeoX otherwise than its files do.
    names = {"lm_head.weight": "embed_out.weight"} if family == "gpt_neox" else {}
    state = {names.get(k, k.removeprefix(drop)): v.half().contiguous()
             for k, v in checkpoint_tensors(model).items()
             if not (config.tie_word_embeddings and k == "lm_head.weight")}
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file({"ids": ids[0].to(torch.int32), "logits": logits.contiguous()},
              os.path.join(folder, "expected.safetensors"))
    # The keys that checkpoints of these families carry, not this transformers version's dialect.
    written = written | dict(architectures=[type(model).__name__], model_type=family)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(written, f, indent=1, sort_keys=True)
        f.write("\n")
    spread = logits.std().item()
    print(f"{name:24s} logit spread {spread:.2f}")
    assert spread > 0.5, "logits do not spread"


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "golden")
    wanted = sys.argv[2:]
    for position, (name, (family, overrides)) in enumerate(CONFIGS.items()):
        seed = position if position < NUMBERED else zlib.crc32(name.encode())
        if not wanted or name in wanted:
            make(out, name, family, BASE | overrides, seed)
    for name, (family, config, drop) in OWN_KEYS.items():
        if not wanted or name in wanted:
            make(out, name, family, config, zlib.crc32(name.encode()), drop)


main()
