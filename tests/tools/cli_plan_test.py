#!/usr/bin/env python3
"""quantmill plan, and quantize within a budget.

usage: cli_plan_test.py BINARY SOURCE_ROOT
"""
import json
import os

from cli_case import ROOT, CliCase, hashes, main, run


class PlanTest(CliCase):
    @staticmethod
    def recorded(folder):
        with open(os.path.join(folder, "quantmill.json"), encoding="utf-8") as file:
            return json.load(file)

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
        code, out, _ = run(*flags, "--no-time", "--effort", "fast", "--budget", "4.5bits",
                           "--json")
        plan = json.loads(out)
        self.assertEqual(code, 0)
        self.assertIsNone(plan["estimated_seconds"])
        self.assertEqual(plan["budget"], "4.5bits")
        self.assertGreater(plan["predicted_kl"], 0)
        self.assertLessEqual(plan["average_bits"], 4.5)
        self.assertGreater(plan["average_bits"], 4.4)
        self.assertEqual(os.listdir(self.folder), [])

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

    def test_a_target_refuses_before_anything_is_read(self):
        flags = [self.model, "--samples", "8", "--sequence-length", "128", "--effort", "fast"]
        self.assert_fails(2, ["--target vllm", "q_proj", "3 bits", "w4a16"], "plan", *flags,
                          "--target", "vllm", "--scheme", "w3a16")
        self.assert_fails(2, ["--target sglang", "--asymmetric"], "quantize", *flags, "-o",
                          self.path("out"), "--target", "sglang", "--asymmetric", "--quiet")
        self.assert_fails(2, ["--tp", "--target"], "plan", *flags, "--tp", "2")
        self.assertEqual(os.listdir(self.folder), [])
        code, out, err = run("quantize", *flags, "-o", self.path("out"), "--group-size", "64",
                             "--target", "vllm", "--tp", "2", "--budget", "5bits", "--json")
        self.assertEqual(code, 0, err)
        schemes = {layer["scheme"].split()[0] for layer in json.loads(out)["layers"]}
        self.assertEqual(schemes, {"w4a16", "w8a16"})  # what that server has kernels for
        with open(os.path.join(self.path("out"), "quantmill.json"), encoding="utf-8") as file:
            recipe = json.load(file)["recipe"]
        self.assertEqual((recipe["target"], recipe["tensor_parallel"]), ("vllm", 2))
        verify = ["verify", self.path("out"), "--target", "vllm", "--tp"]
        self.assertEqual(run(*verify, "2")[0], 0)
        code, out, _ = run(*verify, "3")
        self.assertEqual(code, 1)
        self.assertIn("8 heads and 4 key-value heads", " ".join(out.split()))

    def test_budget_of_bits(self):
        folder = self.path("out")
        report = self.quantize(folder, "--budget", "4.5bits", "--method", "rtn")
        budget = report["budget"]
        self.assertEqual((budget["asked"], budget["limit"], budget["measured"]),
                         ("4.5bits", 4.5, None))
        self.assertAlmostEqual(budget["average_bits"], self.average_bits(folder), places=2)
        self.assertEqual(self.recorded(folder)["budget"], budget)
        self.assertLessEqual(self.average_bits(folder), 4.51)  # the shapes beside the codes, too
        self.assertGreater(self.average_bits(folder), 4.45)
        self.assertEqual(os.listdir(self.folder), ["out"])
        code, out, _ = run("verify", folder, "--reference", self.model)
        self.assertEqual(code, 0, out)

    def test_budget_of_divergence_is_measured_on_text_held_out(self):
        folder = self.path("out")
        flags = ["--group-size", "64", "--samples", "16", "--sequence-length", "128", "--method",
                 "rtn", "--effort", "fast", "--calib", os.path.join(ROOT, "calib_data", "calibration.txt")]
        code, out, err = run("quantize", self.model, "-o", folder, "--budget", "kl<=0.02", "--json",
                             *flags)
        self.assertEqual(code, 0, err)
        trials = [line for line in err.splitlines() if "measure" in line]
        self.assertGreater(len(trials), 1, err)
        # The smallest that was kept is what was written.
        kept = [float(line.split(": ")[1].split()[0]) for line in trials if line.endswith("kept")]
        self.assertAlmostEqual(self.average_bits(folder), min(kept), places=2)
        for line in trials:
            measured = float(line.split("measure ")[1].split(":")[0])
            self.assertEqual(measured <= 0.02, line.endswith("kept"), line)
        # That trial is in the report, and beside the weights.
        budget = json.loads(out)["budget"]
        self.assertEqual((budget["asked"], budget["limit"]), ("kl<=0.02", 0.02))
        self.assertLessEqual(budget["measured"], 0.02)
        told = [line for line in trials if f'{budget["measured"]:.4g}:' in line]
        self.assertEqual(len(told), 1, err)
        self.assertIn(f'{budget["average_bits"]:.3f} bits', told[0])
        self.assertAlmostEqual(budget["average_bits"], min(kept), places=3)
        self.assertEqual(os.listdir(self.folder), ["out"])
        record = self.recorded(folder)
        self.assertEqual(record["budget"], budget)
        self.assertEqual(record["recipe"]["calibration"]["held_out"], 16)
        # The recipe beside the weights makes the same ones again, without a search.
        again = self.path("again")
        code, _, err = run("quantize", self.model, "-o", again, "--recipe",
                           os.path.join(folder, "recipe.yaml"), "--quiet")
        self.assertEqual(code, 0, err)
        self.assertEqual(hashes(again)["model.safetensors"], hashes(folder)["model.safetensors"])
        self.assertNotIn("budget", self.recorded(again))

    def test_budgets_that_cannot_be_kept_are_told(self):
        self.assert_fails(2, ["1 bits a weight cannot be reached", "is the least"], "quantize",
                          self.model, "-o", self.path("out"), "--group-size", "64", "--samples",
                          "8", "--sequence-length", "128", "--effort", "fast", "--budget", "1bits",
                          "--quiet")
        # Before anything is measured: the text is not opened. Of what a server loads, too.
        for more, least in (([], "2.25"), (["--target", "vllm"], "4.25"),
                            (["--rule", ".*mlp.*=w4a16", "--rotate"], "3.75")):
            self.assert_fails(2, ["2.2 bits a weight cannot be reached", least + " is the least"],
                              "quantize", self.model, "-o", self.path("out"), "--group-size", "64",
                              "--calib", self.path("none.txt"), "--budget", "2.2bits", "--quiet",
                              *more)
        self.assert_fails(2, ["2.25 is the least"], "plan", self.model, "--group-size", "64",
                          "--calib", self.path("none.txt"), "--budget", "2.2bits")
        text = self.path("short.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write("A short text. " * 400)
        self.assert_fails(3, ["not calibrated on", "--samples"], "quantize", self.model, "-o",
                          self.path("out"), "--group-size", "64", "--samples", "50",
                          "--sequence-length", "64", "--calib", text, "--budget", "kl<=0.1",
                          "--quiet")
        self.assertEqual(os.listdir(self.folder), ["short.txt"])


if __name__ == "__main__":
    main()
