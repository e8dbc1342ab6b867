"""Arithmetic in words and digits, and tables, logs and records whose totals and times are right."""

from . import lexicon as lx
from .core import fill, in_words


def word_problem(rng):
    ctx = lx.common({})
    lx.cast(rng, ctx, "a", "b")
    things = rng.pick("apples coins stamps marbles books pencils shells cards eggs stones".split())
    x, y, k = rng.between(12, 90), rng.between(3, 60), rng.between(2, 6)
    total = x + y
    lost = rng.between(2, total - 2)
    left = total - lost
    ctx.update(
        th=things,
        x=x,
        y=y,
        s=total,
        l=lost,
        r=left,
        k=k,
        p=left * k,
        w=in_words(left * k),
        d=rng.pick(lx.DAYS),
        o=rng.pick(lx.PLACES),
    )
    head = fill(
        rng,
        "On {d} {a} has {x} {th}. {B} gives {a_him} {y} more, and then {a_he} loses {l} of them [near|behind|in] the"
        " {o}.",
        ctx,
    )
    ask = fill(
        rng,
        "How many {th} does {a} have in the end, and how many would {k} such [children|friends] have together?",
        ctx,
    )
    work = fill(
        rng,
        "First, {x} + {y} = {s}. Then {s} - {l} = {r}. So {a} has {r} {th}. Together, {k} would have {k} x {r} = {p}"
        " {th}, [in words: {w}|that is {w}].",
        ctx,
    )
    return f"Problem: {head} {ask}\n\nSolution: {work}"


def drill(rng):
    """Sums of one kind, a rule first."""
    kind, base, rows = rng.below(4), rng.between(2, 19), []
    start = rng.between(2, 30)
    count = rng.between(8, 12)
    if kind == 0:
        rows = [f"{n} x {base} = {n * base}" for n in range(start, start + count)]
        title = f"Multiplication by {in_words(base)}"
    elif kind == 1:
        rows = [f"{a} + {b} = {a + b}" for a, b in ((rng.between(10, 999), rng.between(10, 999)) for _ in range(count))]
        title = "Addition of numbers below one thousand"
    elif kind == 2:
        rows = [f"{a + b} - {b} = {a}" for a, b in ((rng.between(10, 500), rng.between(10, 500)) for _ in range(count))]
        title = "Subtraction, with the check a + b = c"
    else:
        rows = [f"{n}: {in_words(n)}" for n in (rng.between(0, 9999) for _ in range(count))]
        title = "Numbers and their names"
    sequence = [start + i * base for i in range(7)]
    last = (
        f"Continue the sequence: {', '.join(map(str, sequence[:4]))}. The next three are {sequence[4]}, {sequence[5]}"
        f" and {sequence[6]}, because each is {base} more than the one before."
    )
    return title + "\n\n" + "\n".join(rows) + "\n\n" + last


def comparison(rng):
    ctx = lx.common({})
    people = lx.cast(rng, ctx, "a", "b", "c")
    what, unit, lo, hi = rng.pick(
        [
            ("is {} years old", "years", 6, 90),
            ("has {} euros", "euros", 5, 500),
            ("lives {} kilometres from the sea", "kilometres", 1, 400),
            ("has read {} pages", "pages", 20, 900),
        ]
    )
    values = rng.sample(list(range(lo, hi)), 3)
    order = sorted(zip(values, people), key=lambda pair: -pair[0])
    facts = [f"{p.first} {what.format(v)}." for v, p in zip(values, people)]
    gap = order[0][0] - order[2][0]
    return (
        f"{' '.join(facts)}\n\nIn order, from the largest number to the smallest:"
        f" {', '.join(f'{p.first} ({v})' for v, p in order)}. {order[0][1].first} is first, {order[2][1].first} last;"
        f" the difference is {order[0][0]} - {order[2][0]} = {gap} {unit}. {order[1][1].first} is in the middle."
        f" Together: {values[0]} + {values[1]} + {values[2]} = {sum(values)} {unit}."
    )


def table(rng):
    rows = rng.between(4, 8)
    names = rng.sample(lx.FOODS, rows) if rng.chance(50) else [lx.place(rng) for _ in range(rows)]
    cols = rng.sample(["2019", "2020", "2021", "2022", "2023", "2024"], 2)
    cols.sort()
    data = [[rng.between(1, 900) for _ in cols] for _ in names]
    total = [sum(r[i] for r in data) for i in range(2)]
    head = ["name", *cols, "sum"]
    body = [[n, str(r[0]), str(r[1]), str(sum(r))] for n, r in zip(names, data)] + [
        ["total", str(total[0]), str(total[1]), str(sum(total))]
    ]
    best = max(range(rows), key=lambda i: sum(data[i]))
    grew = sum(r[1] > r[0] for r in data)
    note = (
        f"The largest sum is that of {names[best]}, {sum(data[best])}. From {cols[0]} to {cols[1]} the total"
        f" {'rose' if total[1] > total[0] else 'fell'} from {total[0]} to {total[1]}; {in_words(grew)} of"
        f" {in_words(rows)} rows grew."
    )
    if rng.chance(50):
        return (
            "| "
            + " | ".join(head)
            + " |\n|"
            + "---|" * 4
            + "\n"
            + "\n".join("| " + " | ".join(r) + " |" for r in body)
            + "\n\n"
            + note
        )
    return ",".join(head) + "\n" + "\n".join(",".join(r) for r in body) + "\n\n" + note


def log(rng):
    """A server log: rising times, the same ids coming back, a summary that counts the lines above."""
    host, day = (
        lx.coined(rng) + f"-{rng.between(1, 20):02d}",
        f"20{rng.between(18, 26)}-{rng.between(1, 12):02d}-{rng.between(1, 28):02d}",
    )
    jobs = [f"{rng.below(1 << 16):04x}" for _ in range(3)]
    clock, out, count = rng.between(0, 80000), [], {"INFO": 0, "WARN": 0, "ERROR": 0}
    seen = {j: 0 for j in jobs}
    for _ in range(rng.between(9, 16)):
        clock += rng.between(1, 40)
        job = rng.pick(jobs)
        if seen[job] == 0:
            level, text = "INFO", f"job {job} started by user {rng.pick(lx.GIRLS + lx.BOYS).lower()}"
        elif rng.chance(15):
            level, text = rng.pick(
                [
                    ("WARN", f"job {job}: disk {rng.between(80, 99)}% full"),
                    ("WARN", f"job {job}: retry {seen[job]} of 5"),
                    ("ERROR", f"job {job}: connection to {host} refused"),
                ]
            )
        else:
            level, text = "INFO", f"job {job}: step {seen[job]} done in {rng.between(2, 900)} ms"
        seen[job] += 1
        count[level] += 1
        out.append(f"{day} {clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d} {level:<5} [{host}] {text}")
    for job in jobs:
        if seen[job]:
            clock += rng.between(1, 9)
            out.append(
                f"{day} {clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d} INFO  [{host}] job {job} finished"
                f" after {seen[job] - 1} steps"
            )
            count["INFO"] += 1
    return (
        "\n".join(out)
        + f"\n\nsummary for {host} on {day}: {count['INFO']} info, {count['WARN']} warnings, {count['ERROR']} errors"
    )


ARITHMETIC = [(word_problem, 3), (drill, 1), (comparison, 2)]
TABLES = [(table, 2), (log, 3)]
