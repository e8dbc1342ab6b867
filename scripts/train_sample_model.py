#!/usr/bin/env python3
"""Makes calib_data/sample_model, the calibration and evaluation text, and their manifest, from a seed.

Needs: pip install torch transformers tokenizers safetensors numpy (the versions used are in the manifest).

The model is a Llama of about 3.7 M parameters, trained from scratch on text that calib_data/textgen writes:
nothing of it comes from anywhere else. Text and tokenizer are byte-identical everywhere; trained weights
depend on the CPU and the torch build in their last digits, so a second run gives an equivalent model, not
the same bytes. Weights are trained in float32 (--bf16 runs the matrix products in bfloat16) and stored in FP16.

  scripts/train_sample_model.py --bf16           everything, as committed: 10 minutes on two idle cores with AVX-512 BF16
  scripts/train_sample_model.py --steps 200 --out /tmp/try      a quick try
  scripts/train_sample_model.py --measure-only   measure what is there and write the manifest again
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "calib_data"), os.path.join(ROOT, "scripts")]

from generate_text import make_split, write  # noqa: E402
from textgen import dialogue, numbers  # noqa: E402
from textgen.core import Rng, seed_of  # noqa: E402
from textgen.passages import SEED, SEPARATOR  # noqa: E402

END, START_TURN, END_TURN, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = [END, START_TURN, END_TURN, PAD]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'"
    " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONFIG = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    hidden_act="silu",
    max_position_embeddings=1024,
    initializer_range=0.02,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rope_scaling=None,
    attention_bias=False,
    attention_dropout=0.0,
    mlp_bias=False,
    tie_word_embeddings=True,
    use_cache=True,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=3,
    torch_dtype="float16",
)
RESCALED = (
    "channels are multiplied by exp(N(0, sigma)) in pairs that cancel in real arithmetic: the function of the model is"
    " unchanged, but it has the strong and weak channels of a large model, which training a small one does not produce;"
    " without them plain 4-bit rounding costs almost nothing. Methods that use activations gain more over plain"
    " rounding here than on a real small model."
)
LICENCE = "the licence of quantmill itself (see LICENSE); no third-party text or weights"


def write_json(path, value):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


# ---- text -> tokens ----


def chats(seed, count):
    """Short ChatML exchanges, as (question, answer) lists."""
    out = []
    for i in range(count):
        rng, turns = Rng(seed_of(seed, "chat", i)), []
        for _ in range(rng.between(1, 3)):
            if rng.chance(60):
                turns.append(rng.pick(dialogue.SCHOOL_FACTS))
            else:
                problem, solution = numbers.word_problem(rng).split("\n\n")
                turns.append((problem.removeprefix("Problem: "), solution.removeprefix("Solution: ")))
        out.append(turns)
    return out


def train_tokenizer(texts, path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [0, 1, 2, 3]
    tokenizer.save(path)
    return tokenizer


def training_stream(items, seed, tokenizer):
    """One list of token ids. Passages run on as in the text files; every few end with the end token, chats lie between."""
    rng, out, i = Rng(seed_of(seed, "stream")), [], 0
    turns = iter(chats(seed, len(items) // 16))
    while i < len(items):
        run = rng.between(1, 12)
        text = SEPARATOR.join(t for _, t in items[i : i + run])
        i += run
        out += [0] + tokenizer.encode(text, add_special_tokens=False).ids
        for question, answer in next(turns, ()):
            chat = f"{START_TURN}user\n{question}{END_TURN}\n{START_TURN}assistant\n{answer}{END_TURN}\n"
            out += ([0] if rng.chance(50) else []) + tokenizer.encode(chat, add_special_tokens=False).ids
    return out


# ---- training ----


def new_model(torch, seed):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed & 0x7FFFFFFF)
    fields = {
        k: v for k, v in CONFIG.items() if k not in ("architectures", "model_type", "torch_dtype", "rope_scaling")
    }
    model = LlamaForCausalLM(LlamaConfig(**fields, attn_implementation="sdpa")).float()
    with torch.no_grad():  # residual outputs start smaller, as their sum grows with depth
        for layer in model.model.layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.mul_((2 * CONFIG["num_hidden_layers"]) ** -0.5)
    return model


def learning_rate(step, steps, peak, warmup):
    """Linear warm-up, constant, and linear to 2 % of the peak over the last quarter."""
    decay = max(1, steps // 4)
    return peak * min((step + 1) / warmup, 1.0, 0.02 + 0.98 * (steps - step) / decay)


def batches(torch, stream, steps, tokens_per_step, seed):
    """Windows of 512 tokens, every eighth batch 1,024; each epoch cuts the stream at a new offset, in a new order."""
    generator = torch.Generator().manual_seed(seed & 0x7FFFFFFF)
    data, queues = torch.tensor(stream, dtype=torch.long), {512: [], 1024: []}
    for step in range(steps):
        window = 1024 if step % 8 == 7 else 512
        rows = max(1, tokens_per_step // window)
        queue = queues[window]
        if len(queue) < rows:
            offset = torch.randint(window, (1,), generator=generator).item()
            starts = torch.arange(offset, len(data) - window, window)
            queue += starts[torch.randperm(len(starts), generator=generator)].tolist()
        yield torch.stack([data[s : s + window + 1] for s in (queue.pop() for _ in range(rows))])


def train(torch, stream, args):
    model = new_model(torch, args.seed)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [dict(params=decay, weight_decay=args.weight_decay), dict(params=rest, weight_decay=0.0)],
        lr=args.lr,
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    first, mean, begin = 0, None, time.time()
    if args.checkpoint and os.path.exists(args.checkpoint):
        saved = torch.load(args.checkpoint)
        first, mean = saved["step"], saved["mean"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    model.train()
    for step, rows in enumerate(batches(torch, stream, args.steps, args.tokens_per_step, args.seed)):
        if step < first:
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, args.warmup)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99 or step + 1 == args.steps:
            print(
                f"step {step + 1:5d}/{args.steps}  loss {mean:.4f}  {time.time() - begin:6.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if args.checkpoint:
                saved = dict(step=step + 1, mean=mean, model=model.state_dict(), optimizer=optimizer.state_dict())
                torch.save(saved, args.checkpoint + ".tmp")
                os.replace(args.checkpoint + ".tmp", args.checkpoint)
    return model.eval()


def rescale_channels(torch, model, seed, sigma):
    """Multiplies channels by exp(N(0, sigma)) in pairs that cancel in real arithmetic.

    Large trained models have a few strong channels that a small one does not grow by itself; the function
    of the model stays the same. Pairs: norm gain and its readers; v rows and o columns (of every query head
    that shares them); up rows and down columns; q and k rows (equal within a rotary pair).
    """
    generator = torch.Generator().manual_seed(seed & 0x7FFFFFFF)
    heads, kv, dim = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"], CONFIG["head_dim"]

    def spread(n):
        return torch.exp(torch.randn(n, generator=generator) * sigma)

    with torch.no_grad():
        for layer in model.model.layers:
            attn, mlp = layer.self_attn, layer.mlp
            for norm, readers in (
                (layer.input_layernorm, (attn.q_proj, attn.k_proj, attn.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                s = spread(norm.weight.numel())
                norm.weight.div_(s)
                for linear in readers:
                    linear.weight.mul_(s)
            s = spread(kv * dim)
            attn.v_proj.weight.mul_(s[:, None])
            attn.o_proj.weight.div_(s.view(kv, 1, dim).expand(kv, heads // kv, dim).reshape(-1))
            s = spread(mlp.up_proj.weight.shape[0])
            mlp.up_proj.weight.mul_(s[:, None])
            mlp.down_proj.weight.div_(s)
            s = spread(kv * dim // 2).view(kv, 1, dim // 2).repeat(1, 2, 1).view(kv, 1, dim)
            attn.k_proj.weight.div_(s.reshape(-1, 1))
            attn.q_proj.weight.mul_(s.expand(kv, heads // kv, dim).reshape(-1, 1))


def save_model(torch, model, folder):
    from safetensors.torch import save_file

    tensors = {k: v.detach().half().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    path = os.path.join(folder, "model.safetensors")
    save_file(dict(sorted(tensors.items())), path, metadata={"format": "pt"})
    os.chmod(path, 0o644)
    write_json(os.path.join(folder, "config.json"), CONFIG)
    write_json(
        os.path.join(folder, "generation_config.json"),
        dict(bos_token_id=0, eos_token_id=[0, 2], pad_token_id=3, do_sample=False),
    )
    write_json(
        os.path.join(folder, "tokenizer_config.json"),
        dict(
            tokenizer_class="PreTrainedTokenizerFast",
            bos_token=END,
            eos_token=END,
            pad_token=PAD,
            add_bos_token=False,
            add_prefix_space=False,
            additional_special_tokens=[START_TURN, END_TURN],
            clean_up_tokenization_spaces=False,
            model_max_length=1024,
            chat_template=CHAT_TEMPLATE,
        ),
    )


# ---- measuring and the manifest ----


def measure(torch, out, train_items):
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    import measure as m

    folder = os.path.join(out, "sample_model")
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    with open(os.path.join(out, "evaluation.txt"), encoding="utf-8", newline="") as f:
        text = f.read()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    train_ids = tokenizer.encode(SEPARATOR.join(t for _, t in train_items), add_special_tokens=False).ids
    ppl = m.perplexity(model, ids)
    rtn, kl, same = m.divergence(model, m.rounded_copy(model), ids)
    result = {
        "protocol": (
            "evaluation.txt as one stream, no BOS, windows of 512 tokens without overlap, 511 scored in each, last"
            " short window dropped; FP16 weights, float32 arithmetic"
        ),
        "evaluation_tokens": len(ids),
        "scored_tokens": len(ids) // 512 * 511,
        "evaluation_bytes_per_token": round(len(text.encode()) / len(ids), 3),
        "perplexity_unigram": round(m.NGram(train_ids, 1, len(tokenizer.get_vocab())).perplexity(ids), 3),
        "perplexity_trigram_kneser_ney": round(m.NGram(train_ids, 3, len(tokenizer.get_vocab())).perplexity(ids), 3),
        "ngram_training_tokens": len(train_ids),
        "perplexity_fp16": round(ppl, 4),
        "perplexity_rtn_int4_group64_symmetric": round(rtn, 4),
        "rtn_increase_percent": round(100 * (rtn / ppl - 1), 2),
        "kl_fp16_rtn_nats_per_token": round(kl, 5),
        "rtn_top1_agreement": round(same, 4),
    }
    for name, value in result.items():
        print(f"{name:<42} {value}")
    return result


def training_record(args, items, stream):
    return {
        "characters": sum(len(t) for _, t in items),
        "passages": len(items),
        "tokens": len(stream),
        "steps": args.steps,
        "tokens_per_step": args.tokens_per_step,
        "epochs": round(args.steps * args.tokens_per_step / len(stream), 2),
        "optimizer": (
            f"AdamW, betas 0.9 0.95, weight decay {args.weight_decay} on matrices only, gradient norm clipped at 1"
        ),
        "learning_rate": f"{args.lr} after {args.warmup} steps, linear to 2 % over the last quarter",
        "arithmetic": "bfloat16 matrix products, float32 weights and sums" if args.bf16 else "float32",
        "packages": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "tokenizers", "safetensors")},
    }


def write_manifest(out, args, result, training):
    made = {
        "calibration.txt": ("scripts/generate_text.py", f"{args.seed} / calibration"),
        "evaluation.txt": ("scripts/generate_text.py", f"{args.seed} / evaluation"),
    }
    train_command = "scripts/train_sample_model.py" + (" --bf16" if "bfloat16" in training["arithmetic"] else "")
    files = {}
    names = ["calibration.txt", "evaluation.txt"] + sorted(
        "sample_model/" + n for n in os.listdir(os.path.join(out, "sample_model"))
    )
    for name in names:
        with open(os.path.join(out, name), "rb") as f:
            data = f.read()
        command, seed = made.get(name, (train_command, f"{args.seed} / train"))
        files[name] = {
            "made_by": command,
            "seed": seed,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "licence": LICENCE,
        }
    write_json(
        os.path.join(out, "MANIFEST.json"),
        {
            "about": (
                "Original text written by calib_data/textgen and a small Llama model trained on it. Calibration,"
                " evaluation and training text share no passage. Passages are separated by two blank lines."
            ),
            "seed": args.seed,
            "files": files,
            "training": training,
            "measured": result,
        },
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", default=os.path.join(ROOT, "calib_data"), help="folder to write into (default: calib_data)"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--tokens-per-step", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--rescale", type=float, default=0.55, help="sigma of the cancelling channel factors (0: none)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="matrix products of the training in bfloat16")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="saved every 100 steps; a run that finds it goes on from there, with other --steps too before the last quarter",
    )
    parser.add_argument(
        "--keep-float32", metavar="FILE", help="also write the float32 weights before rescaling, as a torch state"
    )
    parser.add_argument(
        "--from-float32", metavar="FILE", help="do not train: rescale, round and measure these weights again"
    )
    parser.add_argument("--measure-only", action="store_true")
    return parser.parse_args()


def main():
    args = parse_arguments()
    import torch

    torch.set_num_threads(args.threads)
    folder = os.path.join(args.out, "sample_model")
    os.makedirs(folder, exist_ok=True)
    for split in ("calibration", "evaluation"):
        write(os.path.join(args.out, split + ".txt"), make_split(split, args.seed))
    items = make_split("train", args.seed)
    if args.measure_only or args.from_float32:
        with open(os.path.join(args.out, "MANIFEST.json"), encoding="utf-8") as f:
            training = json.load(f)["training"]
    else:
        tokenizer = train_tokenizer([t for _, t in items], os.path.join(folder, "tokenizer.json"))
        stream = training_stream(items, args.seed, tokenizer)
        print(f"{len(items)} training passages, {len(stream):,} tokens", file=sys.stderr)
        model = train(torch, stream, args)
        training = training_record(args, items, stream)
        if args.keep_float32:
            torch.save(model.state_dict(), args.keep_float32)
    if args.from_float32:
        model = new_model(torch, args.seed).eval()
        model.load_state_dict(torch.load(args.from_float32))
    if not args.measure_only:
        rescale_channels(torch, model, args.seed, args.rescale)
        training["channel_rescaling"] = {"sigma": args.rescale, "seed": args.seed, "why": RESCALED}
        save_model(torch, model, folder)
    result = measure(torch, args.out, items)
    write_manifest(args.out, args, result, training)
    return 0


if __name__ == "__main__":
    sys.exit(main())
