#!/usr/bin/env python3
"""quantmill eval and generate.

usage: cli_eval_test.py BINARY SOURCE_ROOT
"""
import json
import os
import shutil

from cli_case import CliCase, main, run


class EvalTest(CliCase):
    def test_eval(self):
        rtn, gptq = self.artifact("rtn")[0], self.path("gptq")
        self.quantize(gptq, "--effort", "best")
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

    def test_log_probs_replace_nothing_but_log_probs(self):
        command = ["eval", self.model, "--text", self.text, "--window", "64", "--max-windows", "1",
                   "--log-probs"]
        precious = self.path("precious.json")
        with open(precious, "w", encoding="utf-8") as file:
            file.write("[1, 2]")
        self.assert_fails(2, [precious], *command, precious)
        with open(precious, encoding="utf-8") as file:
            self.assertEqual(file.read(), "[1, 2]")
        self.assert_fails(4, ["none"], *command, self.path("none/scores.json"))
        scores = self.path("scores.json")
        for _ in range(2):
            code, _, err = run(*command, scores)
            self.assertEqual(code, 0, err)
            with open(scores, encoding="utf-8") as file:
                self.assertEqual([len(model) for model in json.load(file)], [63])
        self.assertEqual(sorted(os.listdir(self.folder)), ["precious.json", "scores.json"])

    def test_one_window_has_no_interval(self):
        code, out, err = run("eval", self.model, "--text", self.text, "--window", "64",
                             "--max-windows", "1", "--json")
        self.assertEqual(code, 0, err)
        self.assertIsNone(json.loads(out)["models"][0]["perplexity_ci95"])

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

    def test_a_model_without_a_tokenizer(self):
        """The file that is missing, and what to do."""
        bare = self.path("bare")
        shutil.copytree(self.model, bare)
        os.remove(os.path.join(bare, "tokenizer.json"))
        generate = ["generate", bare, "--prompt", "The", "--quiet"]
        evaluate = ["eval", bare, "--text", self.text, "--window", "64"]
        for command, words in ((generate, []), (evaluate, ["--tokens-file"])):
            self.assert_fails(3, ["bare/tokenizer.json: is missing", "copy that file", *words],
                              *command)
        self.assertNotIn("token ids", run(*generate)[2])  # which it does not take
        self.assertNotIn("tokenizer.model", run(*generate)[2])
        with open(os.path.join(bare, "tokenizer.model"), "wb") as file:
            file.write(b"sentencepiece")
        self.assert_fails(3, ["tokenizer.model is not read"], *generate)

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


if __name__ == "__main__":
    main()
