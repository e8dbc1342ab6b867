#!/usr/bin/env python3
"""quantmill convert.

usage: cli_convert_test.py BINARY SOURCE_ROOT
"""
import json
import os
import shutil
import struct

from cli_case import CliCase, hashes, main, run


class ConvertTest(CliCase):
    def weights_hash(self, folder):
        return hashes(folder)["model.safetensors"]

    def test_convert_there_and_back(self):
        """Symmetric groups, some with negative scales, through every format: the same bytes."""
        source = self.path("source")
        self.quantize(source, "--effort", "best")
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

    def test_fp8_there_and_back(self):
        for scheme in ("fp8-tensor", "fp8-static", "fp8-block"):
            first, middle, last = (self.path(f"{scheme}-{number}") for number in range(3))
            code, _, err = run("quantize", self.model, "-o", first, "--scheme", scheme, "--format",
                               "fp8", "--method", "rtn", "--effort", "fast", "--samples", "4",
                               "--sequence-length", "128", "--quiet")
            self.assertEqual(code, 0, err)
            for source, target, name in ((first, middle, "compressed-tensors"),
                                         (middle, last, "fp8")):
                code, _, err = run("convert", source, "-o", target, "--format", name, "--quiet")
                self.assertEqual(code, 0, err)
                code, out, err = run("verify", target, "--reference", self.model)
                self.assertEqual(code, 0, out + err)
            self.assertEqual(self.weights_hash(first), self.weights_hash(last))

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

    def scatter_groups(self, folder):
        """Input k of the first layer's query becomes one of group k mod 4, as act-order may."""
        name = "model.layers.0.self_attn.q_proj.g_idx"
        with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            info = json.loads(file.read(length))[name]
            inputs = info["shape"][0]
            file.seek(8 + length + info["data_offsets"][0])
            file.write(struct.pack(f"<{inputs}i", *(k % 4 for k in range(inputs))))
        os.remove(os.path.join(folder, "quantmill.json"))

    def test_scattered_groups_are_run_and_dequantized_but_not_repacked(self):
        source, _ = self.artifact("rtn")
        scattered, dense = self.path("scattered"), self.path("dense")
        self.assertEqual(run("convert", source, "-o", scattered, "--format", "gptq")[0], 0)
        self.scatter_groups(scattered)
        self.assert_fails(2, ["q_proj", "act-order", "--dequantize"], "convert", scattered, "-o",
                          self.path("out"), "--format", "compressed-tensors", "--quiet")
        code, _, err = run("convert", scattered, "-o", dense, "--dequantize", "f32")
        self.assertEqual(code, 0, err)
        code, out, err = run("eval", source, scattered, dense, "--text", self.text, "--window",
                             "128", "--max-windows", "2", "--compute", "f32", "--json")
        self.assertEqual(code, 0, err)
        before, after, decoded = (model["perplexity"] for model in json.loads(out)["models"])
        self.assertEqual(after, decoded)
        self.assertNotEqual(after, before)

    def quantize_for_gguf(self, name, scheme, *flags):
        folder = self.path(name)
        code, _, err = run("quantize", self.model, "-o", folder, "--method", "rtn", "--scheme",
                           scheme, "--effort", "fast", "--samples", "4", "--sequence-length",
                           "128", "--quiet", *flags)
        self.assertEqual(code, 0, err)
        return folder

    def test_convert_to_gguf(self):
        """Repacked, or encoded from the dense model: one file, the same on every run."""
        artifact = self.quantize_for_gguf("artifact", "w4a16", "--group-size", "32")
        eight = self.quantize_for_gguf("eight", "w8a16")
        for source, label, flags in ((artifact, "gguf Q4_0", []), (eight, "gguf Q8_0", []),
                                     (self.model, "gguf F16", []),
                                     (self.model, "gguf Q4_K_M", ["--gguf-type", "q4_k_m"]),
                                     (artifact, "gguf Q4_0", ["--embedding-type", "q8_0"])):
            outputs = [self.path("one.gguf"), self.path("two.gguf")]
            for output, threads in zip(outputs, ("1", "2")):
                code, out, err = run("convert", source, "-o", output, "--format", "gguf", "--json",
                                     "--force", "--threads", threads, *flags)
                self.assertEqual(code, 0, err)
                report = json.loads(out)
                self.assertEqual((report["to"], report["layers"]), (label, 29))
                self.assertEqual(report["output_bytes"], os.path.getsize(output))
            with open(outputs[0], "rb") as one, open(outputs[1], "rb") as two:
                self.assertEqual(one.read(4), b"GGUF")
                self.assertEqual(two.read()[4:], one.read())
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["artifact", "eight", "one.gguf", "two.gguf"])

    def test_convert_to_gguf_refuses(self):
        output = self.path("model.gguf")
        flags = ["-o", output, "--format", "gguf", "--quiet"]
        artifact = self.quantize_for_gguf("artifact", "w4a16", "--group-size", "32")
        self.assert_fails(2, ["--gguf-type", "quantized already"], "convert", artifact, *flags,
                          "--gguf-type", "q8_0")
        self.assert_fails(2, ["--embedding-type", "only for --format gguf"], "convert", artifact,
                          "-o", output, "--format", "gptq", "--embedding-type", "f16")
        zeros = self.quantize_for_gguf("zeros", "w4a16", "--asymmetric")
        self.assert_fails(2, ["zero points", "model.layers.0"], "convert", zeros, *flags)
        floats = self.quantize_for_gguf("floats", "fp8")
        self.assert_fails(2, ["floats", "model.layers.0"], "convert", floats, *flags)
        copy = self.path("copy")
        shutil.copytree(artifact, copy)
        with open(os.path.join(copy, "tokenizer.json"), encoding="utf-8") as file:
            tokenizer = json.load(file)
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": False}, tokenizer["pre_tokenizer"]]}
        with open(os.path.join(copy, "tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump(tokenizer, file)
        self.assert_fails(3, ["pre_tokenizer", "--gguf-pre"], "convert", copy, *flags)
        self.assertEqual(run("convert", copy, *flags, "--gguf-pre", "gpt-2")[0], 0)
        # Where the patterns are known, another name would be another tokenizer.
        other = ["-o", self.path("other.gguf"), "--format", "gguf", "--gguf-pre"]
        self.assert_fails(2, ["--gguf-pre", "'smollm' does not stand for"], "convert", self.model,
                          *other, "smollm")
        self.assert_fails(2, ["--gguf-pre", "no name"], "convert", self.model, *other, "bad name")
        self.assert_fails(2, ["exists already", "--force"], "convert", copy, *flags)
        with open(output, "w", encoding="utf-8") as file:
            file.write("a text")
        self.assert_fails(2, ["another kind"], "convert", copy, *flags, "--force")
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["artifact", "copy", "floats", "model.gguf", "zeros"])

    def test_an_output_named_gguf_is_one(self):
        """A folder of that name would be found out by llama.cpp alone."""
        source, _ = self.artifact("rtn")
        out = ["-o", self.path("x.gguf"), "--quiet"]
        quantize = ["quantize", self.model, "--group-size", "64", "--method", "rtn"]
        self.assert_fails(2, ["x.gguf", "add --format gguf"], *quantize, *out)
        self.assert_fails(2, ["X.GGUF", "add --format gguf"], *quantize, "-o", self.path("X.GGUF"),
                          "--quiet")
        for more in (["--format", "gptq"], ["--dequantize", "f16"]):
            self.assert_fails(2, ["x.gguf", "--format gguf"], "convert", source, *out, *more)
        file = self.path("model.gguf")
        self.assertEqual(run("convert", self.model, "-o", file, "--format", "gguf", "--quiet")[0],
                         0)
        self.assert_fails(2, ["x.gguf", "another name"], "convert", file, *out)
        # And a file cannot have the name of a folder, with or without --force.
        os.mkdir(self.path("folder"))
        quantize = ["quantize", self.model, "--method", "rtn"]
        for command in (["convert", self.model], quantize):
            for more in ([], ["--force"]):
                self.assert_fails(2, ["is a folder", "folder/NAME"], *command, "-o",
                                  self.path("folder"), "--format", "gguf", "--quiet", *more)
        self.assertEqual(sorted(os.listdir(self.folder)), ["folder", "model.gguf"])

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
        self.assert_fails(2, ["awq", "4 bits", "not w8a16 per channel symmetric"], "convert", eight,
                          *out, "--format", "awq")
        shutil.rmtree(eight)
        # As the source has them, not with the zero points that they would get.
        mixed = self.path("mixed")
        self.quantize(mixed, "--method", "rtn", "--rule", ".*down_proj=w4a16:g32")
        self.assert_fails(2, ["awq", "is w4a16 g64 symmetric, and", "down_proj w4a16 g32 symmetric"],
                          "convert", mixed, *out, "--format", "awq")
        self.assertEqual(os.listdir(self.folder), ["mixed"])


if __name__ == "__main__":
    main()
