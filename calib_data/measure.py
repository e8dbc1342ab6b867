"""Measures a causal language model on a text: perplexity, n-gram baselines, and plain 4-bit rounding.

Protocol: the text is one token stream without a BOS token, cut into windows of `window` tokens that do not
overlap; in each window every token but the first is scored, a last shorter window is dropped. Weights are
the stored FP16 values, arithmetic is float32. The n-gram models score the same tokens, but may look
back across window borders.
"""

import math
from collections import Counter, defaultdict

import torch

GROUP = 64


def windows(ids, window):
    count = len(ids) // window
    return torch.tensor(ids[: count * window], dtype=torch.long).view(count, window)


@torch.no_grad()
def log_probs(model, batch):
    """[windows, window - 1, vocabulary] log-probabilities of the next token."""
    return torch.log_softmax(model(input_ids=batch[:, :-1]).logits.float(), dim=-1)


@torch.no_grad()
def perplexity(model, ids, window=512, batch=8):
    total, count = 0.0, 0
    for rows in windows(ids, window).split(batch):
        lp = log_probs(model, rows).gather(-1, rows[:, 1:, None])
        total -= lp.double().sum().item()
        count += lp.numel()
    return math.exp(total / count)


@torch.no_grad()
def divergence(reference, model, ids, window=512, batch=8):
    """(perplexity of model, mean KL(reference || model) in nats, share of equal top-1 tokens)."""
    total, kl, same, count = 0.0, 0.0, 0, 0
    for rows in windows(ids, window).split(batch):
        p, q = log_probs(reference, rows), log_probs(model, rows)
        total -= q.gather(-1, rows[:, 1:, None]).double().sum().item()
        kl += (p.exp() * (p - q)).sum(-1).double().sum().item()
        same += (p.argmax(-1) == q.argmax(-1)).sum().item()
        count += rows.shape[0] * (rows.shape[1] - 1)
    return math.exp(total / count), kl / count, same / count


def round_to_4_bits(weight, group=GROUP):
    """Symmetric round-to-nearest along the input axis: scale = amax / 7.5 in FP16, codes in [-8, 7]."""
    w = weight.float().reshape(-1, group)
    scale = (w.abs().amax(1, keepdim=True) / 7.5).half().float()
    codes = torch.where(scale > 0, torch.round(w / torch.where(scale > 0, scale, 1.0)), 0.0).clamp(-8, 7)
    return (codes * scale).reshape(weight.shape)


@torch.no_grad()
def rounded_copy(model):
    """A copy of the model with every linear layer of its blocks rounded to 4 bits."""
    import copy

    out = copy.deepcopy(model)
    for name, module in out.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            module.weight.copy_(round_to_4_bits(module.weight))
    return out


class NGram:
    """Interpolated Kneser-Ney of order 1 to 3 with one discount per order (n1 / (n1 + 2 n2))."""

    def __init__(self, ids, order, vocabulary):
        self.order, self.vocabulary, self.levels = order, vocabulary, []
        counts = Counter(zip(*(ids[i:] for i in range(order))))
        while True:
            by_context = defaultdict(lambda: [0, 0])
            for gram, c in counts.items():
                by_context[gram[:-1]][0] += c
                by_context[gram[:-1]][1] += 1
            n1, n2 = (sum(c == k for c in counts.values()) for k in (1, 2))
            self.levels.insert(0, (counts, dict(by_context), n1 / (n1 + 2 * n2) if n1 else 0.5))
            if len(next(iter(counts))) == 1:
                break
            counts = Counter(gram[1:] for gram in counts)  # continuation counts

    def probability(self, gram):
        """P(last token of gram | the tokens before it); gram holds at most `order` tokens."""
        p = 1.0 / self.vocabulary
        for n, (counts, by_context, discount) in enumerate(self.levels[: len(gram)], start=1):
            total, kinds = by_context.get(gram[-n:-1] if n > 1 else (), (0, 0))
            if total:
                p = (max(counts.get(gram[-n:], 0) - discount, 0.0) + discount * kinds * p) / total
        return p

    def perplexity(self, ids, window=512):
        total, count = 0.0, 0
        for start in range(0, len(ids) - window + 1, window):
            for i in range(start + 1, start + window):
                total -= math.log(self.probability(tuple(ids[max(0, i - self.order + 1) : i + 1])))
                count += 1
        return math.exp(total / count)
