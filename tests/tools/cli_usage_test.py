#!/usr/bin/env python3
"""Help, usage errors, bad places and what the commands print.

usage: cli_usage_test.py BINARY SOURCE_ROOT
"""
import json
import os
import subprocess

from cli_case import BINARY, ROOT, CliCase, main, run


class UsageTest(CliCase):
    def test_help_and_version(self):
        code, out, err = run("--version")
        self.assertEqual((code, err), (0, ""))
        for word in ("quantmill ", "build", "cpu", "backends", "families", "llama", "formats"):
            self.assertIn(word, out)
        self.assertNotIn(ROOT, out)
        self.assertEqual(run("--help")[0], 0)
        for command in ("inspect", "quantize", "verify", "eval", "generate"):
            code, out, err = run(command, "--help")
            self.assertEqual((code, err), (0, ""))
            self.assertIn("Example:", out)
            for flag in ("--json", "--quiet", "--threads", "--device"):
                self.assertIn(flag, out)
            for line in out.splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_version_lists_what_can_be_written(self):
        """Each format that --format takes, and the same as JSON."""
        code, out, err = run("--version")
        self.assertEqual((code, err), (0, ""))
        lines = dict(line.split(None, 1) for line in out.splitlines())
        formats = lines["formats"].split(", ")
        self.assertEqual(formats, ["compressed-tensors", "gptq", "gptq_v2", "awq", "fp8", "gguf"])
        _, _, refusal = run("quantize", self.model, "-o", self.path("o"), "--format", "none")
        self.assertIn(", ".join(formats), refusal)
        for args in (("--version", "--json"), ("--json", "--version")):
            code, text, err = run(*args)
            self.assertEqual((code, err), (0, ""))
            report = json.loads(text)
            self.assertEqual(report["formats"], formats)
            self.assertEqual(", ".join(report["families"]), lines["families"])
            self.assertIn(report["version"], lines["quantmill"])
            self.assertIn("llama", report["families"])
            self.assertIn("cpu", report["backends"])
            self.assertIn(report["isa"], report["isas"])
        self.assertNotIn(ROOT, text)

    def test_no_command_prints_short_help(self):
        code, out, err = run()
        self.assertEqual((code, out), (2, ""))
        self.assertIn("quantize", err)

    def test_usage_errors(self):
        self.assert_fails(2, ["unknown command 'quantise'", "did you mean 'quantize'"], "quantise")
        self.assert_fails(2, ["unknown flag '--bogus'"], "--bogus")
        self.assert_fails(2, ["'--methd'", "did you mean '--method'"], "quantize", "m", "-o", "o",
                          "--methd", "gptq")
        self.assert_fails(2, ["'gptqq'", "did you mean 'gptq'"], "quantize", "m", "-o", "o",
                          "--method", "gptqq")
        self.assert_fails(2, ["'b'"], "inspect", "a", "b")
        self.assert_fails(2, ["MODEL"], "inspect")
        self.assert_fails(2, ["--output"], "quantize", "m")
        self.assert_fails(2, ["needs a value"], "quantize", "m", "-o")
        self.assert_fails(2, ["more than once"], "inspect", "m", "--threads", "1", "--threads",
                          "2")
        self.assert_fails(2, ["--threads"], "inspect", "m", "--threads", "0")
        self.assert_fails(2, ["--threads"], "inspect", "m", "--threads", "two")
        self.assert_fails(2, ["--text"], "eval", "m")
        self.assert_fails(2, ["--group-size"], "quantize", self.model, "-o", self.path("o"),
                          "--group-size", "many")
        self.assert_fails(2, ["--max-host-mem"], "quantize", self.model, "-o", self.path("o"),
                          "--max-host-mem", "2x")
        self.assert_fails(2, ["--max-gpu-mem"], "quantize", self.model, "-o", self.path("o"),
                          "--max-gpu-mem", "2x")
        self.assert_fails(2, ["--max-gpu-mem", "--max-host-mem"], "plan", self.model,
                          "--group-size", "64", "--device", "cpu", "--max-gpu-mem", "8GB")
        self.assert_fails(2, ["--format"], "quantize", self.model, "-o", self.path("o"),
                          "--format", "gguf2")
        self.assert_fails(2, ["--window"], "eval", self.model, "--text", self.text, "--window",
                          "1000000")

    def test_an_empty_value_is_no_missing_flag(self):
        """An unset variable of a script must not switch a gate off."""
        out = ["-o", self.path("out")]
        for flag, *command in (("--reference", "verify", self.model),
                               ("--target", "verify", self.model),
                               ("--reference", "eval", self.model, "--text", self.text),
                               ("--calib", "quantize", self.model, *out),
                               ("--recipe", "quantize", self.model, *out),
                               ("--imatrix", "convert", self.model, *out)):
            self.assert_fails(2, [flag, "needs a value"], *command, flag, "")
        self.assertEqual(os.listdir(self.folder), [])

    def test_flags_before_the_command(self):
        self.assert_fails(2, ["'--quiet' belongs behind the command"], "--quiet", "inspect",
                          self.model)

    def test_groups_that_do_not_fit_are_named(self):
        self.assert_fails(2, ["--group-size", "q_proj", "group sizes that fit"], "quantize",
                          self.model, "-o", self.path("o"), "--group-size", "100")
        self.assertEqual(os.listdir(self.folder), [])

    def test_errors_as_json(self):
        for args, expected in ((("inspect", self.path("none"), "--json"), 3),
                               (("inspect", "--json", "--bogus"), 2)):
            code, out, err = run(*args)
            self.assertEqual(code, expected)
            error = json.loads(out)["error"]
            self.assertEqual(error["code"], expected)
            self.assertTrue(error["message"])
            self.assertEqual(len(err.splitlines()), 1)

    def test_bad_places(self):
        self.assert_fails(3, ["none"], "inspect", self.path("none"))
        self.assert_fails(3, [self.folder], "inspect", self.folder)
        self.assert_fails(4, ["nowhere"], "quantize", self.model, "-o",
                          self.path("nowhere/out"), "--method", "rtn", "--quiet")
        self.assert_fails(4, ["/proc"], "quantize", self.model, "-o", "/proc/out", "--method",
                          "rtn", "--quiet")
        if os.getuid() != 0:
            os.chmod(self.folder, 0o555)
            self.assert_fails(4, [self.folder], "quantize", self.model, "-o", self.path("out"),
                              "--method", "rtn", "--quiet")
            os.chmod(self.folder, 0o755)
        self.assert_fails(3, ["nothing.txt"], "eval", self.model, "--text",
                          self.path("nothing.txt"))
        code, _, err = run("inspect", self.model, env={**os.environ, "QUANTMILL_ISA": "mmx"})
        self.assertEqual(code, 0, err)  # needs no backend
        code, _, err = run("generate", self.model, "--prompt", "a",
                           env={**os.environ, "QUANTMILL_ISA": "mmx"})
        self.assertEqual(code, 2, err)

    def test_full_disk_and_closed_pipe_on_stdout(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BINARY, "inspect", self.model], stdout=full,
                                  stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 4)
        self.assertIn(b"standard output", done.stderr)
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([BINARY, "inspect", self.model], stdout=writer,
                              stderr=subprocess.PIPE)
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (0, b""))


if __name__ == "__main__":
    main()
