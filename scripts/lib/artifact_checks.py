"""What quantmill makes of artifacts that other tools wrote, for the scripts that compare the two.

Import only after python_env.require of torch, numpy, safetensors and tokenizers."""
import json
import math

import measured_run
import numpy as np
import torch
from demands import demand, quantmill
from safetensors.torch import load_file
from tokenizers import Tokenizer

SAMPLE = measured_run.ROOT / "calib_data" / "sample_model"
TEXTS = measured_run.ROOT / "calib_data"
WINDOW = 512
WINDOWS = 2


def tokens(name):
    """Ids of a text of calib_data, by the sample model's tokenizer."""
    tokenizer = Tokenizer.from_file(str(SAMPLE / "tokenizer.json"))
    text = (TEXTS / name).read_text(encoding="utf-8")
    return tokenizer.encode(text, add_special_tokens=False).ids


def evaluation_windows():
    ids = tokens("evaluation.txt")
    return [ids[w * WINDOW:(w + 1) * WINDOW] for w in range(WINDOWS)]


def calibration_windows(count=16, length=256):
    ids = tokens("calibration.txt")
    return [ids[w * length:(w + 1) * length] for w in range(count)]


def check_files(artifact):
    """inspect reads it, and verify finds no fault."""
    quantmill("inspect", artifact, "--json")
    quantmill("verify", artifact, "--quiet")


def decoded(artifact):
    """Every tensor of the dense F32 checkpoint that quantmill makes of the artifact."""
    folder = artifact.parent / f"{artifact.name}-f32"
    quantmill("convert", artifact, "-o", folder, "--force", "--dequantize", "f32", "--quiet")
    return load_file(folder / "model.safetensors")


def our_log_probs(artifact, *flags):
    """Of the targets of evaluation_windows, computed in F32."""
    ids, scores = artifact.parent / "tokens.json", artifact.parent / "log_probs.json"
    ids.write_text(json.dumps(sum(evaluation_windows(), [])))
    quantmill("eval", artifact, "--tokens-file", ids, "--window", WINDOW, "--max-windows", WINDOWS,
              "--compute", "f32", "--log-probs", scores, "--json", *flags)
    return np.array(json.loads(scores.read_text())).flatten()


def their_log_probs(model):
    """Of the same targets, by a model of transformers."""
    result = []
    for window in evaluation_windows():
        ids = torch.tensor([window])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        result.append(torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0].numpy())
    return np.concatenate(result)


def compare_log_probs(ours, theirs, limit):
    """Tells both perplexities. limit: of the relative difference between them."""
    demand(ours.shape == theirs.shape, f"{ours.shape} log-probabilities, not {theirs.shape}")
    perplexities = [math.exp(-values.mean()) for values in (ours, theirs)]
    difference = abs(perplexities[0] / perplexities[1] - 1)
    demand(difference <= limit, "perplexity {:.4f}, theirs {:.4f}".format(*perplexities))
    return (f"perplexity {perplexities[0]:.4f}, theirs {perplexities[1]:.4f} (log-probabilities "
            f"within {np.abs(ours - theirs).max():.0e})")
