#!/usr/bin/env python3
"""quantmill bench.

usage: cli_bench_test.py BINARY SOURCE_ROOT
"""
import json

from cli_case import CliCase, main, run


class BenchTest(CliCase):
    flags = ["--prompt-tokens", "32", "--decode-tokens", "4", "--batch", "1,3", "--runs", "2"]

    def test_bench(self):
        artifact = self.artifact("rtn")[0]
        code, out, err = run("bench", artifact, "--reference", self.model, *self.flags, "--json")
        self.assertEqual((code, err), (0, ""))
        report = json.loads(out)
        self.assertEqual([m["path"] for m in report["models"]], [artifact, self.model])
        self.assertEqual(report["reference"], self.model)
        quantized, dense = report["models"]
        self.assertLess(quantized["weight_bytes"], dense["weight_bytes"])
        for model in report["models"]:
            self.assertEqual([row["batch"] for row in model["rows"]], [1, 3])
            for row in model["rows"]:
                self.assertGreater(row["first_token"], 0)
                self.assertGreaterEqual(row["token_p99"], row["token"] / 2)
                self.assertAlmostEqual(row["tokens_per_second"], row["batch"] / row["token"])
                self.assertAlmostEqual(
                    row["bandwidth_share"],
                    model["weight_bytes"] / row["token"] / model["read_bandwidth"])
        for mine, theirs in zip(quantized["rows"], dense["rows"]):
            self.assertAlmostEqual(mine["speedup"], theirs["token"] / mine["token"])
            self.assertIsNone(theirs["speedup"])

    def test_without_reference_and_as_text(self):
        code, out, err = run("bench", self.model, *self.flags)
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith("protocol  prompts of 32 random tokens"), out)
        self.assertNotIn("speedup:", out)
        code, out, err = run("bench", self.model, "--reference", self.model, *self.flags, "--json")
        self.assertEqual(len(json.loads(out)["models"]), 1)  # itself

    def test_bad_input(self):
        self.assert_fails(2, ["--batch", "1,x"], "bench", self.model, "--batch", "1,x")
        self.assert_fails(2, ["--batch"], "bench", self.model, "--batch", "0")
        self.assert_fails(2, ["--batch"], "bench", self.model, "--batch", "1,")
        self.assert_fails(2, ["--prompt-tokens", "positions"], "bench", self.model,
                          "--prompt-tokens", "100000")
        self.assert_fails(3, ["nowhere"], "bench", self.path("nowhere"))


if __name__ == "__main__":
    main()
