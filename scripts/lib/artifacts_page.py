"""docs/artifacts.md, of which each script writes the section that it shows."""
import textwrap

import measured_run

PAGE = measured_run.ROOT / "docs" / "artifacts.md"
SEPARATOR = "\n## "


def write_section(title, text, columns, rows):
    """Puts a paragraph and a table under `## title`, instead of what is there."""
    lines = [title, "", *textwrap.wrap(text, 120, break_on_hyphens=False), "",
             "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    section = "\n".join(lines) + "\n"
    head, *sections = PAGE.read_text(encoding="utf-8").split(SEPARATOR)
    titles = [known.split("\n", 1)[0] for known in sections]
    if title in titles:
        sections[titles.index(title)] = section
    else:
        sections[-1:] = [*(known.rstrip("\n") + "\n" for known in sections[-1:]), section]
    PAGE.write_text(SEPARATOR.join([head, *sections]), encoding="utf-8")
