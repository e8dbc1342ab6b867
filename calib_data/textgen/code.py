"""Short programs with consistent identifiers: Python, C, shell, SQL, JSON, YAML, and a commit message or two."""

import json

from . import lexicon as lx
from .core import article

NOUNS = (
    "item user order page node token price score event record line task route frame sample point edge file packet"
    " weight row key block".split()
)
VERBS = (
    "count find merge filter load update remove sort copy check encode parse scale split collect print reset".split()
)
FIELDS = "id name size width height price start end count owner state color path age total rate level".split()
COUNTS = [f for f in FIELDS if f not in ("id", "name", "owner", "state", "color", "path")]


def plural(noun):
    return noun[:-1] + "ies" if noun.endswith("y") and noun != "key" else noun + "s"


def python_function(rng):
    n, f = rng.pick(NOUNS), rng.pick(FIELDS)
    ns, limit = plural(n), rng.between(2, 500)
    kind = rng.below(6)
    if kind == 0:
        name = f"{rng.pick(['total', 'sum'])}_{f}"
        body = (
            f'def {name}({ns}):\n    """Sum of {f} over all {ns}."""\n    result = 0\n    for {n} in {ns}:\n       '
            f' result += {n}["{f}"]\n    return result\n\n\n{ns} = [{{"{f}": {limit}}}, {{"{f}": {limit + 5}}}]\nassert'
            f" {name}({ns}) == {2 * limit + 5}\n"
        )
    elif kind == 1:
        name = f"{rng.pick(['filter', 'select', 'keep'])}_{ns}"
        body = (
            f'def {name}({ns}, limit={limit}):\n    """The {ns} whose {f} is at least limit, in order."""\n    return'
            f" [{n} for {n} in {ns} if {n}.{f} >= limit]\n\n\ndef test_{name}():\n    assert {name}([]) == []\n   "
            f" assert len({name}([{n.capitalize()}({f}={limit}), {n.capitalize()}({f}={limit - 1})])) == 1\n"
        )
    elif kind == 2:
        g = rng.pick([x for x in FIELDS if x != f])
        cls = n.capitalize()
        body = (
            f'class {cls}:\n    """{article(n).capitalize()} {n} with {f} and {g}."""\n\n    def __init__(self, {f},'
            f" {g}={limit}):\n        self.{f} = {f}\n        self.{g} = {g}\n\n    def __repr__(self):\n        return"
            f' f"{cls}({f}={{self.{f}}}, {g}={{self.{g}}})"\n\n    def with_{g}(self, {g}):\n        return'
            f" {cls}(self.{f}, {g})\n\n\n{n} = {cls}({f}=1)\nassert {n}.{g} == {limit}\nassert {n}.with_{g}(7).{g}"
            " == 7\n"
        )
    elif kind == 3:
        body = (
            f'def group_by_{f}({ns}):\n    """Maps each {f} to the list of its {ns}."""\n    groups = {{}}\n    for {n}'
            f" in {ns}:\n        groups.setdefault({n}.{f}, []).append({n})\n    return groups\n\n\nfor {f}, members in"
            f" sorted(group_by_{f}(load_{ns}()).items()):\n    print({f}, len(members))\n"
        )
    elif kind == 4:
        body = (
            "import argparse\nimport sys\n\n\ndef main():\n    parser ="
            f' argparse.ArgumentParser(description="{rng.pick(VERBS).capitalize()} {ns}.")\n   '
            f' parser.add_argument("{f}")\n    parser.add_argument("--limit", type=int, default={limit})\n    args ='
            ' parser.parse_args()\n    if args.limit < 1:\n        print("limit must be at least 1",'
            f" file=sys.stderr)\n        return 2\n    for {n} in read_{ns}(args.{f})[:args.limit]:\n       "
            f' print({n})\n    return 0\n\n\nif __name__ == "__main__":\n    sys.exit(main())\n'
        )
    else:
        body = (
            f'def find_{n}({ns}, {f}):\n    """Index of the first {n} with this {f}; {ns} are sorted by {f}."""\n   '
            f" low, high = 0, len({ns})\n    while low < high:\n        middle = (low + high) // 2\n        if"
            f" {ns}[middle].{f} < {f}:\n            low = middle + 1\n        else:\n            high = middle\n    if"
            f" low < len({ns}) and {ns}[low].{f} == {f}:\n        return low\n    raise KeyError({f})\n"
        )
    return body.rstrip("\n").replace("\n\n\n", "\n\n")  # two blank lines separate passages


def c_function(rng):
    n, f, g = rng.pick(NOUNS), *rng.sample(FIELDS[2:], 2)
    t, ns, limit = rng.pick(["int", "long", "float", "double"]), plural(n), rng.between(4, 1024)
    zero = {"int": "0", "long": "0", "float": "0.0f", "double": "0.0"}[t]
    kind = rng.below(4)
    if kind == 0:
        return (
            f"// Returns the largest {f} of count {ns}, or {zero} if there are none.\n{t} max_{f}(const struct {n}*"
            f" {ns}, int count) {{\n  {t} best = {zero};\n  for (int i = 0; i < count; i++) {{\n    if ({ns}[i].{f} >"
            f" best) {{\n      best = {ns}[i].{f};\n    }}\n  }}\n  return best;\n}}"
        )
    if kind == 1:
        return (
            f"#include <stdio.h>\n#include <stdlib.h>\n\n#define MAX_{ns.upper()} {limit}\n\nstruct {n} {{\n  {t}"
            f" {f};\n  int {g};\n}};\n\nint main(void) {{\n"
            f"  struct {n}* {ns} = malloc(MAX_{ns.upper()} * sizeof(struct {n}));\n  if ({ns} == NULL) {{\n   "
            ' fprintf(stderr, "out of memory\\n");\n    return 1;\n  }\n'
            f"  for (int i = 0; i < MAX_{ns.upper()}; i++) {{\n    {ns}[i].{f} = ({t})i;\n    {ns}[i].{g} ="
            f' {rng.between(0, 9)};\n  }}\n  printf("%d\\n", {ns}[0].{g});\n  free({ns});\n  return 0;\n}}'
        )
    if kind == 2:
        return (
            f"void scale_{ns}({t}* {f}, int count, {t} factor) {{\n  for (int i = 0; i < count; ++i) {{\n    {f}[i] *="
            f" factor;\n  }}\n}}\n\n{t} sum_{ns}(const {t}* {f}, int count) {{\n  {t} sum = {zero};\n  for (int i = 0;"
            f" i < count; ++i) {{\n    sum += {f}[i];\n  }}\n  return sum;\n}}"
        )
    return (
        f"struct {n}* {n}_push(struct {n}* head, {t} {f}) {{\n  struct {n}* node = malloc(sizeof *node);\n  if (!node)"
        f" return head;\n  node->{f} = {f};\n  node->next = head;\n  return node;\n}}\n\nint {n}_length(const struct"
        f" {n}* head) {{\n  int length = 0;\n  while (head) {{\n    length++;\n    head = head->next;\n  }}\n  return"
        " length;\n}"
    )


def json_config(rng):
    people = [lx.Person(rng) for _ in range(rng.between(2, 3))]
    n = rng.pick(NOUNS)
    data = {
        "name": lx.coined(rng),
        "version": f"{rng.between(0, 4)}.{rng.between(0, 20)}.{rng.between(0, 9)}",
        "debug": rng.chance(50),
        plural(n): [
            {
                "id": rng.between(1, 9999),
                "owner": p.full,
                "city": lx.place(rng),
                rng.pick(COUNTS): rng.between(1, 500),
                "tags": rng.sample(lx.COLOURS, rng.between(0, 3)),
            }
            for p in people
        ],
        "limits": {f"max_{plural(n)}": rng.between(10, 5000), "timeout_ms": rng.between(1, 60) * 100},
        "next": None,
    }
    return json.dumps(data, indent=2)


def shell_and_yaml(rng):
    n, v, name = rng.pick(NOUNS), rng.pick(VERBS), lx.coined(rng)
    port, copies = rng.between(1024, 9999), rng.between(1, 9)
    if rng.chance(50):
        return (
            f"#!/bin/sh\n# {v.capitalize()} all {plural(n)} of {name} and keep {copies} copies.\nset"
            f' -eu\n\ndir="${{1:-/var/lib/{name}}}"\nkeep={copies}\n\nfor file in "$dir"/*.{n}; do\n  echo "{v}'
            f' $file"\n  {name} {v} --port {port} "$file" || exit 1\ndone\n\nls -t "$dir" | tail -n +$((keep + 1)) |'
            ' while read -r old; do\n  rm -f "$dir/$old"\ndone'
        )
    return (
        f"service: {name}\nport: {port}\nreplicas: {copies}\nenv:\n  - name: {n.upper()}_LIMIT\n    value:"
        f' "{rng.between(1, 99)}"\n  - name: {name.upper()}_PORT\n    value: "{port}"\n{plural(n)}:\n'
        + "\n".join(
            f"  - {f}: {rng.between(1, 400)}\n    owner: {lx.Person(rng).last.lower()}"
            for f in rng.sample(COUNTS[:7], 3)
        )
        + f"\nhealth:\n  path: /{plural(n)}/status\n  port: {port}"
    )


def sql(rng):
    n, (f, g) = rng.pick([x for x in NOUNS if x not in ("order", "key", "row")]), rng.sample(
        [x for x in COUNTS if x != "end"], 2
    )
    ns = plural(n)
    values = [(i + 1, rng.pick(lx.GIRLS + lx.BOYS), rng.between(1, 300)) for i in range(rng.between(3, 6))]
    low = rng.between(1, 200)
    hits = sum(v[2] >= low for v in values)
    return (
        f"CREATE TABLE {ns} (\n  id INTEGER PRIMARY KEY,\n  owner TEXT NOT NULL,\n  {f} INTEGER\n);\n\nINSERT INTO {ns}"
        f" (id, owner, {f}) VALUES\n"
        + ",\n".join(f"  ({i}, '{o}', {x})" for i, o, x in values)
        + f";\n\nSELECT owner, {f} FROM {ns} WHERE {f} >= {low} ORDER BY {f} DESC;\n-- {hits} of {len(values)} rows"
    )


def commit(rng):
    n, v, f = rng.pick(NOUNS), rng.pick(VERBS), rng.pick(FIELDS)
    fn, old, new = f"{v}_{plural(n)}", rng.between(1, 60), rng.between(61, 900)
    p = lx.Person(rng)
    return (
        f"Author: {p.full} <{p.first.lower()}@{lx.coined(rng)}.example>\n\n    {fn}:"
        f" {rng.pick(['fix', 'check', 'document', 'test'])} the limit of {f}\n\n    The {f} of {article(n)} {n} could"
        f" be larger than {old}, and {fn} then returned too few {plural(n)}.\n    The limit is now {new}.\n\n---"
        f" a/src/{n}.py\n+++ b/src/{n}.py\n@@ -{old},6 +{old},6 @@\n def {fn}({plural(n)}):\n     kept = []\n     for"
        f" {n} in {plural(n)}:\n-        if {n}.{f} < {old}:\n+        if {n}.{f} < {new}:\n            "
        f" kept.append({n})\n     return kept"
    )


PASSAGES = [(python_function, 5), (c_function, 3), (json_config, 2), (shell_and_yaml, 2), (sql, 1), (commit, 1)]
