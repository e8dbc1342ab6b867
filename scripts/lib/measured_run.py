"""Runs a command on a fixed set of CPUs and measures it."""
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build" / "release" / "quantmill"


@dataclass
class Measured:
    code: int
    stdout: str
    stderr: str
    seconds: float  # wall clock, from start of the process to its end
    peak_rss: int  # bytes, of the process itself

    def json(self):
        return json.loads(self.stdout)


def build():
    """Builds build/release/quantmill if it is not there or not up to date."""
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "check": True}
    subprocess.run([ROOT / "scripts" / "setup"], **quiet)
    subprocess.run(["cmake", "--preset", "release"], **quiet)
    subprocess.run(["cmake", "--build", "--preset", "release", "--target", "quantmill"], **quiet)


def run(*arguments, cpus=None, prefix=(), expect=0):
    """`quantmill arguments`, on the first `cpus` CPUs that this process may use.

    `prefix`: a command that starts it. Exits unless it ends with the code `expect` (None: any).
    """
    command = [*map(str, prefix), str(BINARY), *map(str, arguments)]

    def pin():
        if cpus:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])

    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=pin, cwd=ROOT)
    stdout, stderr, usage = _drain(process)
    result = Measured(process.returncode, stdout, stderr, time.monotonic() - start,
                      usage.ru_maxrss * 1024)
    if expect is not None and result.code != expect:
        raise SystemExit(f"{' '.join(command)}\nended with {result.code}, not {expect}:\n{stderr}")
    return result


def _drain(process):
    import threading

    texts = {}

    def read(name, stream):
        texts[name] = stream.read()

    threads = [threading.Thread(target=read, args=("out", process.stdout)),
               threading.Thread(target=read, args=("err", process.stderr))]
    for thread in threads:
        thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    for thread in threads:
        thread.join()
    return texts["out"], texts["err"], usage


def shown(*arguments):
    """The command line as documentation shows it."""
    return "quantmill " + " ".join(str(argument) for argument in arguments)
