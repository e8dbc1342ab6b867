"""Python packages for scripts, in virtual environments under build/."""
import importlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def require(name, requirements, built_here=None):
    """Makes sure that `requirements` (import name -> pip requirement) can be imported.

    built_here: likewise, packages that are installed after the others because they are built with
    what is there by then.

    Where one is missing, starts this script again in build/<name>, an environment made there from
    the package index; QUANTMILL_PYTHON names another interpreter to use instead.
    """
    built_here = built_here or {}
    wanted = requirements | built_here
    if all(_found(module) for module in wanted):
        return
    python = os.environ.get("QUANTMILL_PYTHON") or str(_make(name, requirements, built_here))
    if os.environ.get("QUANTMILL_RESTARTED") == name:  # another name: of a script that started this one
        sys.exit(f"{python} lacks one of: {', '.join(wanted.values())}")
    os.environ["QUANTMILL_RESTARTED"] = name
    os.execv(python, [python, *sys.argv])


def _found(module):
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _make(name, requirements, built_here):
    folder = ROOT / "build" / name
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making the Python environment {folder.relative_to(ROOT)}", file=sys.stderr)
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)])
        if made.returncode != 0:
            print("no virtual environment: install python3-venv (scripts/setup --python)",
                  file=sys.stderr)
            sys.exit(4)
    pip = [str(python), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *requirements.values()], check=True)
    if built_here:
        subprocess.run([*pip, "--no-build-isolation", *built_here.values()], check=True)
    return python
