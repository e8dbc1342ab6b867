"""Texts, tables and the model that the measuring scripts share."""
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import measured_run

CPUS = 2
TEXTS = {
    "wikitext2-test.joined.txt":
        "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83",
    "wikitext103-train-1000.json":
        "dccdf8e1ff7a214d91c7bfafaaad006c17238fe9115f25053fb173687e60539e",
}
WINDOWS = ["--window", 2048, "--max-windows", 12]


STORIES = ("tinystories-train-1000.json",
           "81eb9eb450a4a0509f719ba60bb1c4cd043d91156b303fdc3c13627639079935")


RAW = ("wikitext2-test.raw",
       "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08")


def _find(name, wanted):
    folder = os.environ.get("QUANTMILL_DATA")
    if not folder:
        sys.exit("set QUANTMILL_DATA to the folder of the texts (scripts/measure --help)")
    path = Path(folder) / name
    if not path.exists():
        path = Path(folder) / "text" / name
    if not path.exists():
        sys.exit(f"{name} is missing in {folder} and {folder}/text")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wanted:
        sys.exit(f"{path}: SHA-256 is {found}, expected {wanted}")
    return path


def find_texts():
    """Paths of the evaluation and of the calibration text."""
    return [_find(name, wanted) for name, wanted in TEXTS.items()]


def find_stories():
    return _find(*STORIES)


def find_raw():
    """Path of the evaluation text as it is distributed, which llama.cpp's protocol reads."""
    return _find(*RAW)


class Table:
    """Rows of what | target | measured | command, and the raw results."""

    def __init__(self, replacements):
        self.rows = []
        self.raw = {}
        self._replacements = replacements  # local paths -> how the table spells them

    def run(self, key, *arguments, expect=0):
        arguments = [*arguments, "--threads", CPUS]
        print(f"... {self.spell(measured_run.shown(*arguments))}", file=sys.stderr)
        run = measured_run.run(*arguments, "--json", cpus=CPUS, expect=expect)
        self.raw[key] = {"command": self.spell(measured_run.shown(*arguments)), "code": run.code,
                         "seconds": round(run.seconds, 2), "peak_rss_mb": run.peak_rss // 10**6,
                         "report": json.loads(run.stdout) if run.stdout else None}
        return run

    def spell(self, text):
        for path, name in self._replacements.items():
            text = text.replace(str(path), name)
        return text

    def row(self, what, peers, target, measured, key):
        self.rows.append((what, peers, target, measured, f"`{self.raw[key]['command']}`"))

    def markdown(self):
        lines = ["| what | peers | target | measured | command |", "|---|---|---|---|---|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


def machine():
    model = next((line.split(":", 1)[1].strip()
                  for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    version = subprocess.run([measured_run.BINARY, "--version"], capture_output=True, text=True)
    return {"cpu": model, "cpus_used": CPUS, "version": version.stdout.strip()}


def smollm2(named):
    """The folder of the model: `named`, or one made under build/ once."""
    model = named
    if model is None:
        model = measured_run.ROOT / "build" / "smollm2"
        if not (model / "tokenizer_config.json").exists():
            subprocess.run([measured_run.ROOT / "scripts" / "make_smollm2", model], check=True)
    return model.resolve()
