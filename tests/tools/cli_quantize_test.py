#!/usr/bin/env python3
"""quantmill quantize: reports, formats, determinism, rotation.

usage: cli_quantize_test.py BINARY SOURCE_ROOT
"""
import json
import os

from cli_case import CliCase, hashes, main, run


class QuantizeTest(CliCase):
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

    def test_bytes_do_not_depend_on_threads(self):
        for method in ("rtn", "gptq"):
            one, two = self.path(method + "1"), self.path(method + "2")
            self.quantize(one, "--method", method, "--threads", "1")
            self.quantize(two, "--method", method, "--threads", "2")
            self.assertEqual(hashes(one), hashes(two))

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


if __name__ == "__main__":
    main()
