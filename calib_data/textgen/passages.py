"""Splits and domains: which passages make up each text file.

A passage is named by (split, domain, index) and its seed follows from the name, so that any passage
can be made alone. Passages of one file are unique, and exclude those of the files made before it.
"""

from . import code, dialogue, encyclopedia, essay, facts, languages, numbers, prose, web
from .core import Rng, seed_of

SEED = 20261121
SEPARATOR = "\n\n\n"  # two blank lines: no passage holds that

# (domain, its generators, percentage of the passages)
DOMAINS = [
    ("prose", prose.PASSAGES, 11),
    ("essay", essay.PASSAGES, 11),
    ("facts", facts.PASSAGES, 7),
    ("encyclopedia", encyclopedia.PASSAGES, 14),
    ("web", web.PASSAGES, 14),
    ("code", code.PASSAGES, 13),
    ("dialogue", dialogue.PASSAGES, 10),
    ("languages", languages.PASSAGES, 12),
    ("arithmetic", numbers.ARITHMETIC, 5),
    ("tables", numbers.TABLES, 3),
]


def passage(seed, split, index):
    """(domain, text) of one passage."""
    rng = Rng(seed_of(seed, split, index))
    domain, makers = rng.weighted([((d, m), w) for d, m, w in DOMAINS])
    text = rng.weighted(makers)(rng).strip("\n")
    if SEPARATOR in text:
        raise AssertionError(f"{domain} passage {index} holds the separator")
    return domain, text


def passages(seed, split, characters, exclude=()):
    """[(domain, text)] until their sum reaches `characters`, skipping repeats and those in exclude."""
    out, seen, size, index = [], set(exclude), 0, 0
    while size < characters:
        domain, text = passage(seed, split, index)
        index += 1
        if text not in seen:
            seen.add(text)
            out.append((domain, text))
            size += len(text) + len(SEPARATOR)
    return out


def join(items):
    return SEPARATOR.join(text for _, text in items) + "\n"


def split_text(text):
    """The passages of a file made by join()."""
    return text.rstrip("\n").split(SEPARATOR)
