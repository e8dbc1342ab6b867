"""What the tests of the quantmill binary share: it is run as a user does."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

BINARY, ROOT = (os.path.abspath(argument) for argument in sys.argv[1:3])


def run(*args, **options):
    """Returns (exit code, stdout, stderr)."""
    done = subprocess.run([BINARY, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=600, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def hashes(folder):
    result = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            result[name] = hashlib.sha256(file.read()).hexdigest()
    return result


class CliCase(unittest.TestCase):
    """With the sample model, a folder of its own for each test, and artifacts that tests share."""

    @classmethod
    def setUpClass(cls):
        cls.model = os.path.join(ROOT, "calib_data", "sample_model")
        cls.text = os.path.join(ROOT, "calib_data", "evaluation.txt")
        cls.shared = tempfile.mkdtemp(prefix="quantmill-cli-")
        cls.artifacts = {}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared)

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quantmill-cli-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def quantize(self, output, *flags):
        """On few tokens, and without the searches of `--effort best` unless a flag asks for it."""
        effort = [] if "--effort" in flags else ["--effort", "fast"]
        code, out, err = run("quantize", self.model, "-o", output, "--group-size", "64",
                             "--samples", "16", "--sequence-length", "128", "--json", *effort,
                             *flags)
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def artifact(self, method):
        """One artifact a method, made once for all tests that only read it."""
        if method not in self.artifacts:
            folder = os.path.join(self.shared, method)
            self.artifacts[method] = (folder, self.quantize(folder, "--method", method))
        return self.artifacts[method]

    def assert_fails(self, code, words, *args):
        """One line on stderr that has all of `words`, nothing on stdout, and this exit code."""
        got, out, err = run(*args)
        self.assertEqual(got, code, err)
        self.assertEqual(out, "")
        lines = err.splitlines()
        self.assertEqual(len(lines), 1, err)
        self.assertTrue(lines[0].startswith("quantmill: "), err)
        for word in words:
            self.assertIn(word, lines[0])

    def average_bits(self, folder):
        """Bits of codes and scales a weight, over the quantized layers of an artifact."""
        code, out, err = run("inspect", folder, "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)["bits_per_weight"]


def main():
    """Called by each test file: `<file> BINARY SOURCE_ROOT [unittest's arguments]`."""
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
