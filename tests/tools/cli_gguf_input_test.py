#!/usr/bin/env python3
"""GGUF files as MODEL of every command.

usage: cli_gguf_input_test.py BINARY SOURCE_ROOT
"""
import json
import os
import shutil

from cli_case import CliCase, hashes, main, run


class GgufTest(CliCase):
    def gguf(self, name, source, *flags):
        path = self.path(name)
        code, _, err = run("convert", source, "-o", path, "--format", "gguf", "--quiet", *flags)
        self.assertEqual(code, 0, err)
        return path

    def report(self, *args):
        code, out, err = run(*args, "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def perplexities(self, *models):
        report = self.report("eval", *models, "--text", self.text, "--window", "128",
                             "--max-windows", "2")
        return [model["perplexity"] for model in report["models"]]

    def artifact_of_blocks(self):
        """An artifact whose codes Q4_0 holds."""
        folder = self.path("artifact")
        code, _, err = run("quantize", self.model, "-o", folder, "--method", "rtn", "--group-size",
                           "32", "--effort", "fast", "--samples", "4", "--sequence-length", "128",
                           "--quiet")
        self.assertEqual(code, 0, err)
        return folder

    def test_a_dense_model_comes_back(self):
        """Weights bit for bit, the tokenizer to the same ids, the configuration in what counts."""
        file = self.gguf("model.gguf", self.model)
        folders = [self.path("one"), self.path("two")]
        for folder, threads in zip(folders, ("1", "2")):
            report = self.report("convert", file, "-o", folder, "--threads", threads)
            self.assertEqual((report["from"], report["to"]), ("gguf F16", "dense F16"))
        self.assertEqual(hashes(folders[0]), hashes(folders[1]))
        self.assertEqual(hashes(folders[0])["model.safetensors"],
                         hashes(self.model)["model.safetensors"])
        with open(os.path.join(folders[0], "config.json"), encoding="utf-8") as one, \
                open(os.path.join(self.model, "config.json"), encoding="utf-8") as two:
            read, original = json.load(one), json.load(two)
        for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "rope_theta",
                    "tie_word_embeddings", "vocab_size", "bos_token_id", "eos_token_id"):
            self.assertEqual(read[key], original[key], key)
        values = self.perplexities(self.model, file, folders[0])  # refuses other tokens
        self.assertEqual(len(set(values)), 1, values)

    def test_codes_run_as_those_of_the_artifact(self):
        artifact = self.artifact_of_blocks()
        file = self.gguf("blocks.gguf", artifact)
        values = self.perplexities(artifact, file)
        self.assertEqual(values[0], values[1])
        back = self.path("back")
        self.report("convert", file, "-o", back, "--format", "compressed-tensors")
        self.assertEqual(hashes(back)["model.safetensors"], hashes(artifact)["model.safetensors"])
        code, out, err = run("verify", file)
        self.assertEqual(code, 0, out + err)

    def test_quantizes_to_another_file(self):
        """What the folder that it was made from gives, byte for byte: the tokenizer comes along."""
        file = self.gguf("model.gguf", self.model)
        made = []
        for source in (self.model, file):
            output = self.path("quantized.gguf")
            self.report("quantize", source, "-o", output, "--format", "gguf", "--gguf-type", "q4_0",
                        "--effort", "fast", "--samples", "4", "--sequence-length", "128", "--force")
            with open(output, "rb") as whole:
                made.append(whole.read())
        self.assertEqual(made[0], made[1])

    def test_each_command_takes_one(self):
        file = self.gguf("mixed.gguf", self.model, "--gguf-type", "q4_k_m")
        inspected = self.report("inspect", file)
        self.assertTrue(inspected["format"].startswith("gguf "), inspected["format"])
        self.assertEqual(inspected["bytes"], os.path.getsize(file))
        code, out, err = run("generate", file, "--prompt", "The", "--max-tokens", "4", "--quiet")
        self.assertEqual(code, 0, err)
        self.assertTrue(out.strip())
        output = self.path("again")
        report = self.report("quantize", file, "-o", output, "--method", "rtn", "--group-size",
                             "64", "--effort", "fast", "--samples", "4", "--sequence-length", "128")
        self.assertIn("decoded_input", [event["kind"] for event in report["events"]])
        code, out, err = run("verify", output, "--reference", file)
        self.assertEqual(code, 0, out + err)
        code, out, err = run("verify", file)
        self.assertEqual(code, 0, out + err)
        code, out, err = run("plan", file, "--group-size", "64")
        self.assertEqual(code, 0, err)

    def test_blocks_are_counted(self):
        """Bits of linear layers; every matrix in blocks, the embedding too, is a layer of verify."""
        for kind, bits in (("q4_0", 4.5), ("q4_k", 4.5), ("q6_k", 6.5625), ("q8_0", 8.5),
                           ("f16", None)):
            file = self.gguf("model.gguf", self.model, "--gguf-type", kind, "--embedding-type",
                             "f16", "--force")
            self.assertEqual(self.report("inspect", file)["bits_per_weight"], bits, kind)
            layers = self.report("verify", file)["layers"]
            self.assertEqual(len(layers), 0 if bits is None else 28, kind)
            compared = self.report("verify", file, "--reference", self.model)["layers"]
            self.assertEqual(len(compared), len(layers), kind)
        file = self.gguf("model.gguf", self.model, "--gguf-type", "q4_k_m", "--force")
        inspected = self.report("inspect", file)
        linears = [group for group in inspected["groups"] if group["what"] in ("attention", "mlp")]
        weights = {kind: sum(group["parameters"] for group in linears if group["dtype"] == kind)
                   for kind in ("Q4_K", "Q6_K")}
        self.assertGreater(weights["Q6_K"], 0)
        self.assertAlmostEqual(inspected["bits_per_weight"],
                               (4.5 * weights["Q4_K"] + 6.5625 * weights["Q6_K"]) /
                               sum(weights.values()))
        alone = self.report("verify", file)["layers"]
        compared = self.report("verify", file, "--reference", self.model)["layers"]
        for layer in alone:
            self.assertIsNone(layer["weight_error"])
        self.assertEqual(len(alone), 29)
        self.assertEqual(sorted((layer["name"], layer["scheme"]) for layer in alone),
                         sorted((layer["name"], layer["scheme"]) for layer in compared))

    def test_refusals(self):
        file = self.gguf("model.gguf", self.model)
        self.assert_fails(2, ["--imatrix", "only for --format gguf"], "convert", file, "-o",
                          self.path("out"), "--imatrix", "x")
        plain = self.path("plain")  # a folder may have that name
        shutil.copy(file, plain)
        self.assert_fails(2, ["is the input"], "convert", plain, "-o", plain, "--force")
        with open(file, "rb") as whole:
            data = bytearray(whole.read())
        for size in (0, 3, 100, len(data) // 2, len(data) - 1000):
            cut = self.path("cut.gguf")
            with open(cut, "wb") as part:
                part.write(data[:size])
            self.assert_fails(3, ["cut.gguf"], "inspect", cut)
        data[-2000:-1000] = 1000 * b"\xff"
        with open(self.path("cut.gguf"), "wb") as damaged:
            damaged.write(data)
        self.assert_fails(3, ["cut.gguf", "NaN"], "convert", self.path("cut.gguf"), "-o",
                          self.path("out"), "--quiet")
        code, out, _ = run("verify", self.path("cut.gguf"))
        self.assertEqual(code, 1)
        self.assertIn("not finite", out)
        self.assertEqual(sorted(os.listdir(self.folder)), ["cut.gguf", "model.gguf", "plain"])


if __name__ == "__main__":
    main()
