"""Functions of packages that are not installed (they would build CUDA kernels), from their source."""
import ast
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def functions(requirement, path, names, namespace):
    """Defines the functions and methods `names` of the file `path` of a source package in `namespace`.

    `requirement`: "package==version", fetched once from the package index, without what it needs.
    Methods become functions of `self`. Nothing else of the file runs."""
    source = (_unpacked(requirement) / path).read_text(encoding="utf-8")
    found = {node.name: node for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.FunctionDef)}
    missing = [name for name in names if name not in found]
    if missing:
        sys.exit(f"{requirement}: {path} has no {', '.join(missing)}")
    for name in names:
        node = found[name]
        node.decorator_list, node.returns = [], None
        for argument in node.args.args + node.args.kwonlyargs:
            argument.annotation = None
        module = ast.fix_missing_locations(ast.Module([node], []))
        exec(compile(module, f"{requirement}/{path}", "exec"), namespace)
    return namespace


def _unpacked(requirement):
    package, version = requirement.split("==")
    folder = ROOT / "build" / "reader_sources"
    unpacked = folder / f"{package}-{version}"
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                        "--no-build-isolation", "--no-binary", ":all:", "-d", folder, requirement],
                       check=True)
        with tarfile.open(folder / f"{package}-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked
