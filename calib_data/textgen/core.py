"""Deterministic random numbers and a small template language for the text generator.

Nothing here depends on the hash seed, the platform or the Python version's `random` module:
the numbers come from splitmix64 and every seed is derived with SHA-256.

Template language (fill):
  [a|b|c]   one of the alternatives, nesting allowed
  {key}     ctx[key]: a string is itself a template; a list gives one of its items
  {Key}     the same, first letter in upper case
  {an:key}  the value with "a" or "an" before it ({An:key} at the start of a sentence)
"""

import hashlib
import re

MASK = (1 << 64) - 1


def seed_of(*parts):
    """A 64-bit seed from any printable parts, the same on every machine."""
    digest = hashlib.sha256("/".join(str(p) for p in parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little")


class Rng:
    """splitmix64 with the few draws the generator needs."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next64(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        """Uniform integer in [0, n)."""
        return (self.next64() * n) >> 64

    def between(self, low, high):
        """Uniform integer in [low, high]."""
        return low + self.below(high - low + 1)

    def chance(self, percent):
        return self.below(100) < percent

    def pick(self, items):
        return items[self.below(len(items))]

    def weighted(self, pairs):
        """pairs: [(item, integer weight)]."""
        roll = self.below(sum(w for _, w in pairs))
        for item, weight in pairs:
            roll -= weight
            if roll < 0:
                return item
        raise AssertionError("weights changed while drawing")

    def shuffled(self, items):
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out

    def sample(self, items, count):
        return self.shuffled(items)[:count]


_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_FIELD = re.compile(r"\{(?:([aA]n):)?([A-Za-z_0-9]+)\}")


def article(word):
    """'a' or 'an' for the lexicon's words (spelling decides, with the usual exceptions)."""
    lower = word.lower()
    if lower.startswith(("hour", "honest", "heir")):
        return "an"
    if lower.startswith(("uni", "use", "eu", "one", "ut")) and not lower.startswith(("unin", "unim", "utter")):
        return "a"
    return "an" if lower[:1] in "aeiou" or lower.startswith(("8", "11 ", "18 ")) else "a"


def capital(text):
    return text[:1].upper() + text[1:]


def fill(rng, template, ctx):
    """Expands a template; see the file comment."""
    while True:
        changed = _CHOICE.sub(lambda m: rng.pick(m.group(1).split("|")), template)
        if changed == template:
            break
        template = changed

    def field(match):
        art, key = match.group(1), match.group(2)
        upper = key not in ctx
        value = ctx[key[:1].lower() + key[1:]] if upper else ctx[key]
        if isinstance(value, (list, tuple)):
            value = rng.pick(value)
        value = fill(rng, str(value), ctx)
        if art:
            value = article(value) + " " + value
            upper = upper or art == "An"
        return capital(value) if upper else value

    return _FIELD.sub(field, template)


def sentences(rng, templates, ctx):
    """Fills each template and joins them with spaces."""
    return " ".join(fill(rng, t, ctx) for t in templates)


def join_and(items, word="and"):
    """'a', 'a and b', 'a, b and c'."""
    items = list(items)
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " " + word + " " + items[-1]


ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = ". . twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n):
    """English cardinal of 0 <= n < 1,000,000."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")
    if n < 1000:
        return ONES[n // 100] + " hundred" + (" and " + in_words(n % 100) if n % 100 else "")
    rest = n % 1000
    return in_words(n // 1000) + " thousand" + ((" and " if rest < 100 else " ") + in_words(rest) if rest else "")


def with_commas(n):
    return f"{n:,}"
