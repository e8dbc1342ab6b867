#!/usr/bin/env python3
"""Runs the quantmill binary as a user does: flags, errors, exit codes, files, signals.

usage: cli_test.py BINARY SOURCE_ROOT
"""
import glob
import hashlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BINARY = ""
ROOT = ""


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


class CliTest(unittest.TestCase):
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
        code, out, err = run("quantize", self.model, "-o", output, "--group-size", "64",
                             "--samples", "64", "--sequence-length", "128", "--json", *flags)
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

    # ---- help, version, usage ----

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
        self.assert_fails(2, ["--format"], "quantize", self.model, "-o", self.path("o"),
                          "--format", "gguf2")
        self.assert_fails(2, ["--window"], "eval", self.model, "--text", self.text, "--window",
                          "1000000")

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

    # ---- environment ----

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

    # ---- the commands ----

    def test_inspect(self):
        code, out, err = run("inspect", self.model)
        self.assertEqual((code, err), (0, ""))
        self.assertIn("LlamaForCausalLM", out)
        dense = json.loads(run("inspect", self.model, "--json")[1])
        self.assertIsNone(dense["bits_per_weight"])
        self.assertEqual(sum(g["parameters"] for g in dense["groups"]), dense["parameters"])
        packed = json.loads(run("inspect", self.artifact("rtn")[0], "--json")[1])
        self.assertEqual(packed["parameters"], dense["parameters"])
        self.assertGreater(packed["bits_per_weight"], 4)
        self.assertLess(packed["bits_per_weight"], 4.6)

    def test_quantize_reports(self):
        for method in ("rtn", "gptq"):
            folder, report = self.artifact(method)
            self.assertEqual(report["output"], folder)
            self.assertEqual(report["method"], method)
            self.assertLess(report["output_bytes"], report["input_bytes"])
            self.assertGreater(report["peak_rss_bytes"], 0)
            self.assertGreater(report["seconds"]["total"], 0)
            self.assertGreater(report["memory_plan"]["total_bytes"], 0)
            self.assertTrue(report["layers"])
            for layer in report["layers"]:
                self.assertGreater(layer["relative_error"], 0)
                self.assertLess(layer["relative_error"], 0.2)
        kinds = [event["kind"] for event in self.artifact("gptq")[1]["events"]]
        self.assertIn("bundled_calibration", kinds)

    def test_quantize_in_words(self):
        output = self.path("out")
        code, out, err = run("quantize", self.model, "-o", output, "--method", "rtn", "--scheme",
                             "w8a16")
        self.assertEqual(code, 0, err)
        self.assertTrue(out.startswith("quantized " + output), out)
        self.assertIn("w8a16", out)
        self.assertIn("planned memory", err)
        self.assertNotIn("\r", err)  # no terminal, no progress
        self.assertNotIn("\x1b", out + err)
        self.assert_fails(2, ["exists already", "--force"], "quantize", self.model, "-o", output,
                          "--method", "rtn", "--scheme", "w8a16")
        code, out, err = run("quantize", self.model, "-o", output, "--method", "rtn", "--scheme",
                             "w8a16", "--force", "--quiet")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(os.listdir(self.folder), ["out"])

    def test_a_quantized_source_is_refused(self):
        self.assert_fails(3, [], "quantize", self.artifact("rtn")[0], "-o", self.path("o"),
                          "--group-size", "64", "--quiet")

    def test_verify(self):
        for method in ("rtn", "gptq"):
            folder, _ = self.artifact(method)
            code, out, err = run("verify", folder, "--reference", self.model)
            self.assertEqual((code, err), (0, ""), out)
            self.assertTrue(out.startswith("passed"), out)
        code, out, err = run("verify", self.artifact("rtn")[0], "--json")
        self.assertEqual(json.loads(out)["passed"], True)
        self.assert_fails(3, [], "verify", self.model)

    def test_a_rotated_model_is_verified_against_the_original(self):
        folder = self.path("rotated")
        report = self.quantize(folder, "--method", "rtn", "--rotate", "--quantize-head")
        self.assertIn("untied_head", [event["kind"] for event in report["events"]])
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            self.assertFalse(json.load(file)["tie_word_embeddings"])
        self.assertEqual(os.listdir(self.folder), ["rotated"])
        for flags in ([], ["--reference", self.model]):
            code, out, err = run("verify", folder, *flags)
            self.assertEqual((code, err), (0, ""), out)
        code, out, _ = run("eval", folder, "--reference", self.model, "--text", self.text,
                           "--window", "128", "--max-windows", "2", "--json")
        self.assertEqual(code, 0)
        self.assertLess(json.loads(out)["models"][0]["kl_mean"], 0.1)
        environment = {**os.environ, "TMPDIR": self.path("nowhere")}
        code, _, err = run("verify", folder, "--reference", self.model, env=environment)
        self.assertEqual(code, 4)
        self.assertIn("$TMPDIR", err)
        # Another rotation is another model: the record says which one it is.
        record = os.path.join(folder, "quantmill.json")
        with open(record, encoding="utf-8") as file:
            changed = json.load(file)
        changed["rotation"]["seed"] += 1
        with open(record, "w", encoding="utf-8") as file:
            json.dump(changed, file)
        code, out, _ = run("verify", folder, "--reference", self.model)
        self.assertEqual(code, 1, out)
        self.assertIn("rotates by", " ".join(out.split()))

    def test_plan_measures_time_and_spends_a_budget(self):
        flags = ["plan", self.model, "--group-size", "64", "--samples", "8", "--sequence-length",
                 "128"]
        for method in (["--method", "rtn"], [], ["--method", "awq"]):
            code, out, err = run(*flags, *method, "--json")
            self.assertEqual((code, err), (0, ""), out)
            seconds = json.loads(out)["estimated_seconds"]
            self.assertGreater(seconds["solve"], 0)
            self.assertEqual(seconds["fold"] > 0.001, "awq" in method)
            self.assertLess(abs(seconds["total"] - sum(seconds[p] for p in (
                "load", "fold", "forward", "statistics", "solve"))), 1e-9)
        code, out, _ = run(*flags, "--no-time", "--budget", "4.5bits", "--json")
        plan = json.loads(out)
        self.assertEqual(code, 0)
        self.assertIsNone(plan["estimated_seconds"])
        self.assertEqual(plan["budget"], "4.5bits")
        self.assertGreater(plan["predicted_kl"], 0)
        self.assertLessEqual(plan["average_bits"], 4.5)
        self.assertGreater(plan["average_bits"], 4.4)
        self.assertEqual(os.listdir(self.folder), [])

    def average_bits(self, folder):
        """Bits of codes and scales a weight, over the quantized layers of an artifact."""
        code, out, err = run("inspect", folder, "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)["bits_per_weight"]

    def test_budget_of_bits(self):
        folder = self.path("out")
        self.quantize(folder, "--budget", "4.5bits", "--method", "rtn")
        self.assertLessEqual(self.average_bits(folder), 4.51)  # the shapes beside the codes, too
        self.assertGreater(self.average_bits(folder), 4.45)
        self.assertEqual(os.listdir(self.folder), ["out"])
        code, out, _ = run("verify", folder, "--reference", self.model)
        self.assertEqual(code, 0, out)

    def test_budget_of_divergence_is_measured_on_text_held_out(self):
        folder = self.path("out")
        flags = ["--group-size", "64", "--samples", "16", "--sequence-length", "128", "--method",
                 "rtn", "--calib", os.path.join(ROOT, "calib_data", "calibration.txt")]
        code, out, err = run("quantize", self.model, "-o", folder, "--budget", "kl<=0.02", *flags)
        self.assertEqual(code, 0, err)
        trials = [line for line in err.splitlines() if "measure" in line]
        self.assertGreater(len(trials), 1, err)
        # The smallest that was kept is what was written.
        kept = [float(line.split(": ")[1].split()[0]) for line in trials if line.endswith("kept")]
        self.assertAlmostEqual(self.average_bits(folder), min(kept), places=2)
        for line in trials:
            measured = float(line.split("measure ")[1].split(":")[0])
            self.assertEqual(measured <= 0.02, line.endswith("kept"), line)
        self.assertEqual(os.listdir(self.folder), ["out"])
        with open(os.path.join(folder, "quantmill.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["recipe"]["calibration"]["held_out"], 16)
        # The recipe beside the weights makes the same ones again, without a search.
        again = self.path("again")
        code, _, err = run("quantize", self.model, "-o", again, "--recipe",
                           os.path.join(folder, "recipe.yaml"), "--quiet")
        self.assertEqual(code, 0, err)
        self.assertEqual(hashes(again)["model.safetensors"], hashes(folder)["model.safetensors"])

    def test_budgets_that_cannot_be_kept_are_told(self):
        self.assert_fails(2, ["1 bits a weight cannot be reached", "is the least"], "quantize",
                          self.model, "-o", self.path("out"), "--group-size", "64", "--samples",
                          "8", "--sequence-length", "128", "--budget", "1bits", "--quiet")
        text = self.path("short.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write("A short text. " * 400)
        self.assert_fails(3, ["not calibrated on", "--samples"], "quantize", self.model, "-o",
                          self.path("out"), "--group-size", "64", "--samples", "50",
                          "--sequence-length", "64", "--calib", text, "--budget", "kl<=0.1",
                          "--quiet")
        self.assertEqual(os.listdir(self.folder), ["short.txt"])

    def test_rotation_is_planned_and_refused_early(self):
        code, out, _ = run("plan", self.model, "--group-size", "64", "--rotate", "--json")
        self.assertEqual(code, 0)
        rotated = json.loads(out)
        code, out, _ = run("plan", self.model, "--group-size", "64", "--json")
        self.assertEqual(rotated["output_bytes"] - json.loads(out)["output_bytes"], 2048 * 256 * 2)
        self.assert_fails(2, ["--sensitivity", "--rotate"], "plan", self.model, "--group-size",
                          "64", "--rotate", "--sensitivity")
        os.mkdir(self.path("out"))
        self.assert_fails(2, ["exists already"], "quantize", self.model, "-o", self.path("out"),
                          "--group-size", "64", "--rotate", "--quiet")
        self.assertEqual(os.listdir(self.folder), ["out"])

    def weights_hash(self, folder):
        return hashes(folder)["model.safetensors"]

    def test_convert_there_and_back(self):
        """Symmetric groups, some with negative scales, through every format: the same bytes."""
        source, _ = self.artifact("gptq")
        steps = ["gptq", "compressed-tensors", "awq", "gptq", "gptq_v2", "awq",
                 "compressed-tensors"]
        folders = {}
        previous = source
        for number, name in enumerate(steps):
            folder = self.path(f"{number}")
            code, out, err = run("convert", previous, "-o", folder, "--format", name, "--json")
            self.assertEqual(code, 0, err)
            report = json.loads(out)
            self.assertEqual((report["to"], report["layers"]), (name, 28))
            code, out, err = run("verify", folder, "--reference", self.model)
            self.assertEqual(code, 0, out + err)
            folders.setdefault(name, []).append(self.weights_hash(folder))
            previous = folder
        self.assertEqual(folders["compressed-tensors"], 2 * [self.weights_hash(source)])
        self.assertEqual(*folders["gptq"])
        self.assertEqual(*folders["awq"])
        self.assertNotEqual(folders["gptq"][0], folders["gptq_v2"][0])  # zero points less one

    def test_converted_models_compute_the_same(self):
        source, _ = self.artifact("rtn")
        folders = [source]
        for name in ("gptq", "awq"):
            folders.append(self.path(name))
            self.assertEqual(run("convert", source, "-o", folders[-1], "--format", name)[0], 0)
        folders.append(self.path("dense"))
        self.assertEqual(run("convert", source, "-o", folders[-1], "--dequantize", "f32")[0], 0)
        code, out, err = run("eval", *folders, "--text", self.text, "--window", "128",
                             "--max-windows", "2", "--compute", "f32", "--json")
        self.assertEqual(code, 0, err)
        perplexities = {model["perplexity"] for model in json.loads(out)["models"]}
        self.assertEqual(len(perplexities), 1)

    def test_convert_refuses_what_it_cannot_keep(self):
        source, _ = self.artifact("rtn")
        out = ["-o", self.path("out"), "--quiet"]
        self.assert_fails(2, ["is dense"], "convert", self.model, *out, "--format", "gptq")
        self.assert_fails(2, ["--format or --dequantize"], "convert", source, *out)
        self.assert_fails(2, ["unknown format 'gtpq'", "gptq_v2"], "convert", source, *out,
                          "--format", "gtpq")
        mine = self.path("mine")
        shutil.copytree(source, mine)
        before = hashes(mine)
        for output in (mine, os.path.join(mine, "inside"), self.folder):
            self.assert_fails(2, ["is the input, holds it, or lies in it"], "convert", mine, "-o",
                              output, "--force", "--format", "gptq", "--quiet")
        self.assertEqual(hashes(mine), before)
        shutil.rmtree(mine)
        eight = self.path("eight")
        self.quantize(eight, "--method", "rtn", "--rule", ".*=w8a16")
        self.assert_fails(2, ["awq", "4 bits"], "convert", eight, *out, "--format", "awq")
        self.assertEqual(os.listdir(self.folder), ["eight"])

    def test_quantize_writes_every_format(self):
        for flags in (["gptq"], ["gptq_v2", "--asymmetric"], ["awq", "--asymmetric"]):
            folder = self.path(flags[0])
            self.quantize(folder, "--method", "rtn", "--format", *flags)
            code, out, err = run("verify", folder, "--reference", self.model)
            self.assertEqual(code, 0, out + err)
        self.assert_fails(2, ["awq", "--asymmetric"], "quantize", self.model, "-o",
                          self.path("no"), "--group-size", "64", "--format", "awq", "--quiet")
        self.assert_fails(2, ["gptq", "key-value cache"], "quantize", self.model, "-o",
                          self.path("no"), "--group-size", "64", "--format", "gptq",
                          "--kv-scheme", "fp8", "--quiet")

    def test_any_flipped_byte_is_found(self):
        source, _ = self.artifact("gptq")
        size = os.path.getsize(os.path.join(source, "model.safetensors"))
        for number, position in enumerate([3, 200, size // 3, size // 2, size - 2]):
            broken = self.path(f"broken{number}")
            shutil.copytree(source, broken)
            with open(os.path.join(broken, "model.safetensors"), "r+b") as file:
                file.seek(position)
                byte = file.read(1)[0]
                file.seek(position)
                file.write(bytes([byte ^ 0x10]))
            for flags in ([], ["--reference", self.model]):
                code, out, err = run("verify", broken, *flags)
                self.assertIn(code, (1, 3), f"byte {position} of {size}, {flags}: {out}{err}")
                if code == 1:
                    self.assertTrue(out.startswith("FAILED"), out)
                    self.assertEqual(err, "")
                else:
                    self.assertIn("model.safetensors", err)

    def test_eval(self):
        rtn, gptq = self.artifact("rtn")[0], self.artifact("gptq")[0]
        flags = ["--reference", self.model, "--text", self.text, "--window", "256",
                 "--max-windows", "8"]
        code, out, err = run("eval", rtn, gptq, *flags, "--json")
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        self.assertEqual([m["path"] for m in report["models"]], [rtn, gptq])
        self.assertEqual(report["protocol"]["windows"], 8)
        self.assertEqual(len(report["protocol"]["tokens_sha256"]), 64)
        original = report["reference_scores"]["perplexity"]
        for model in report["models"]:
            self.assertEqual(model["tokens"], 8 * 255)
            self.assertGreater(model["kl_mean"], 0)
            self.assertGreater(model["perplexity"], 0.9 * original)
            self.assertLess(model["perplexity"], 1.5 * original)
            low, high = model["perplexity_ci95"]
            self.assertTrue(low < model["perplexity"] < high)
            self.assertGreater(model["tokens_per_second"], 0)
        self.assertLess(report["models"][1]["kl_mean"], report["models"][0]["kl_mean"])
        code, out, err = run("eval", self.model, rtn, *flags)
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith("protocol  windows: 8 windows of 256 tokens"), out)
        self.assertEqual(out.count("reference: "), 1)

    def test_kv_cache(self):
        flags = ["--text", self.text, "--window", "128", "--max-windows", "4", "--json"]

        def scores(*more):
            code, out, err = run("eval", self.model, *flags, *more)
            self.assertEqual(code, 0, err)
            return json.loads(out)

        exact = scores()
        self.assertEqual(exact["protocol"]["kv_cache"], "f32")
        perplexities = set()
        for kind in ("bf16", "fp8", "int8", "int4"):
            # The reference is the model itself, with floats in its cache.
            report = scores("--kv-cache", kind, "--reference", self.model)
            self.assertTrue(report["protocol"]["kv_cache"].startswith(kind))
            self.assertIn("reference f32", report["protocol"]["kv_cache"])
            self.assertEqual(report["reference_scores"]["perplexity"],
                             exact["models"][0]["perplexity"])
            self.assertGreater(report["models"][0]["kl_mean"], 0)
            self.assertLess(report["models"][0]["kl_mean"], 0.1)
            perplexities.add(report["models"][0]["perplexity"])
        self.assertEqual(len(perplexities), 4)
        code, out, err = run("eval", self.model, *flags[:-1], "--kv-cache", "int8")
        self.assertEqual(code, 0, err)
        self.assertIn("keys and values in int8", " ".join(out.split()))
        code, out, err = run("generate", self.model, "--prompt", "The", "--max-tokens", "3",
                             "--kv-cache", "int4", "--json", "--quiet")
        self.assertEqual(code, 0, err)
        self.assertTrue(json.loads(out)["kv_cache"].startswith("int4"))
        self.assert_fails(2, ["--kv-cache"], "eval", self.model, *flags[:-1], "--kv-cache",
                          "int3")
        code, out, err = run("inspect", self.model, "--json")
        self.assertEqual(json.loads(out)["kv_cache"], "f32")

    def test_eval_protocols_and_token_files(self):
        ids = self.path("ids.json")
        with open(ids, "w") as file:
            json.dump([(7 * i) % 500 + 4 for i in range(600)], file)
        code, out, err = run("eval", self.model, "--tokens-file", ids, "--protocol", "llamacpp",
                             "--window", "64", "--json")
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        self.assertEqual(report["protocol"]["name"], "llamacpp")
        self.assertEqual(report["models"][0]["tokens"], 9 * 31)
        self.assertIsNone(report["models"][0]["kl_mean"])
        self.assertIsNone(report["reference"])
        with open(ids, "w") as file:
            json.dump([1, 2, 10**9], file)
        self.assert_fails(3, ["ids.json"], "eval", self.model, "--tokens-file", ids)
        with open(ids, "w") as file:
            json.dump([1, 2, 3], file)
        self.assert_fails(3, ["--window"], "eval", self.model, "--tokens-file", ids, "--window",
                          "64")

    def test_eval_refuses_another_tokenizer(self):
        other = self.path("other")
        shutil.copytree(self.model, other)
        path = os.path.join(other, "tokenizer.json")
        with open(path) as file:
            tokenizer = json.load(file)
        vocab = tokenizer["model"]["vocab"]
        vocab["a"], vocab["e"] = vocab["e"], vocab["a"]
        with open(path, "w") as file:
            json.dump(tokenizer, file)
        self.assert_fails(3, ["other", "tokenizer"], "eval", self.model, other, "--text",
                          self.text, "--window", "64")

    def test_generate(self):
        folder, _ = self.artifact("gptq")
        flags = ["--prompt", "The river", "--max-tokens", "20", "--temperature", "0.8", "--seed",
                 "3"]
        code, out, err = run("generate", folder, *flags)
        self.assertEqual(code, 0, err)
        self.assertIn("tokens a second", err)
        code, text, err = run("generate", folder, *flags, "--json", "--quiet")
        self.assertEqual((code, err), (0, ""))
        report = json.loads(text)
        self.assertEqual(out, report["text"] + "\n")
        self.assertLessEqual(len(report["ids"]), 20)
        self.assert_fails(2, ["--prompt"], "generate", folder, "--prompt", "word " * 3000)

    def test_bytes_do_not_depend_on_threads(self):
        for method in ("rtn", "gptq"):
            one, two = self.path(method + "1"), self.path(method + "2")
            self.quantize(one, "--method", method, "--threads", "1")
            self.quantize(two, "--method", method, "--threads", "2")
            self.assertEqual(hashes(one), hashes(two))

    # ---- signals ----

    def start_long_run(self, **options):
        """A run that is at work: its temporary folder is there."""
        process = subprocess.Popen([BINARY, "quantize", self.model, "-o", self.path("out"),
                                    "--group-size", "64", "--threads", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        deadline = time.time() + 60
        while not glob.glob(self.path(".out.partial-*")):
            self.assertLess(time.time(), deadline)
            self.assertIsNone(process.poll(), "ended before it could be interrupted")
            time.sleep(0.01)
        return process

    def test_interrupts_leave_nothing(self):
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.start_long_run()
            process.send_signal(sent)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130, err)
            self.assertEqual(out, b"")
            self.assertIn(b"interrupted", err)
            self.assertEqual(os.listdir(self.folder), [])

    def test_a_second_interrupt_stops_at_once(self):
        process = self.start_long_run()
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(os.listdir(self.folder), [])

    def test_an_abort_exits_70(self):
        process = self.start_long_run()
        process.send_signal(signal.SIGABRT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 70)
        self.assertIn(b"bug", err)

    def test_progress_on_a_terminal(self):
        master, slave = pty.openpty()
        process = subprocess.Popen([BINARY, "quantize", self.model, "-o", self.path("out"),
                                    "--group-size", "64", "--samples", "16",
                                    "--sequence-length", "128"],
                                   stdout=subprocess.PIPE, stderr=slave,
                                   env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the terminal is gone
                break
            if not part:
                break
            shown += part
        out, _ = process.communicate(timeout=60)
        os.close(master)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b"\rquantizing [", shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown[-80:])
        self.assertNotIn(b"\x1b", out)


if __name__ == "__main__":
    BINARY, ROOT = (os.path.abspath(argument) for argument in sys.argv[1:3])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
