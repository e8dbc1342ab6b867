#!/usr/bin/env python3
"""Writes the bundled calibration and evaluation text from a seed. Needs only the standard library.

  scripts/generate_text.py                      calib_data/calibration.txt and calib_data/evaluation.txt
  scripts/generate_text.py --split train --characters 9000000 --out train.txt    the training text (not committed)
  scripts/generate_text.py --stats              how much of each domain a file holds

The same seed gives the same bytes on every machine. The three splits share no passage.
"""

import argparse
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "calib_data"))

from textgen.passages import SEED, join, passages  # noqa: E402

CHARACTERS = {"calibration": 450_000, "evaluation": 160_000, "train": 9_000_000}


def make_split(split, seed=SEED, characters=None):
    """[(domain, text)] of one split; evaluation excludes calibration's passages, train excludes both."""
    exclude = set()
    if split != "calibration":
        exclude |= {t for _, t in make_split("calibration", seed)}
    if split == "train":
        exclude |= {t for _, t in make_split("evaluation", seed)}
    return passages(seed, split, characters or CHARACTERS[split], exclude)


def write(path, items):
    with open(path, "wb") as f:
        f.write(join(items).encode("utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--split", choices=sorted(CHARACTERS), help="one split only, written to --out")
    parser.add_argument("--characters", type=int, help="its size (default: the split's own)")
    parser.add_argument("--out", help="file for --split")
    parser.add_argument(
        "--dir", default=os.path.join(ROOT, "calib_data"), help="folder for calibration.txt and evaluation.txt"
    )
    parser.add_argument("--stats", action="store_true", help="print characters by domain")
    args = parser.parse_args()
    if args.split and not args.out:
        parser.error("--split needs --out")
    if args.split:
        jobs = [(args.split, args.out)]
    else:
        jobs = [(s, os.path.join(args.dir, s + ".txt")) for s in ("calibration", "evaluation")]
    for split, path in jobs:
        items = make_split(split, args.seed, args.characters if args.split else None)
        write(path, items)
        print(f"{path}: {len(items)} passages, {os.path.getsize(path):,} bytes")
        if args.stats:
            for domain in sorted({d for d, _ in items}):
                print(f"  {domain:<13}{sum(len(t) for d, t in items if d == domain):>9,} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
