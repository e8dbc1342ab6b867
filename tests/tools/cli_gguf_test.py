"""quantmill quantize --format gguf, imatrix: files for llama.cpp."""
import json
import os

from cli_case import CliCase, main, run


class GgufTest(CliCase):
    def quantize_to_gguf(self, output, *flags):
        code, out, err = run("quantize", self.model, "-o", output, "--format", "gguf", "--samples",
                             "4", "--sequence-length", "128", "--effort", "fast", "--json",
                             "--force", *flags)
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def test_quantize_to_gguf(self):
        """One file, the same for any number of threads, with less error than rounding leaves."""
        outputs = [self.path("one.gguf"), self.path("two.gguf")]
        for output, threads in zip(outputs, ("1", "2")):
            report = self.quantize_to_gguf(output, "--threads", threads)
            self.assertEqual(report["format"], "gguf")
            self.assertEqual({layer["scheme"] for layer in report["layers"]}, {"Q4_K", "Q6_K"})
            for layer in report["layers"]:
                self.assertLess(layer["relative_error"], layer["rounded_error"], layer["name"])
        with open(outputs[0], "rb") as one, open(outputs[1], "rb") as two:
            self.assertEqual(two.read(), one.read())
        plain = self.path("plain.gguf")
        code, _, err = run("convert", self.model, "-o", plain, "--format", "gguf", "--gguf-type",
                           "q4_k_m", "--quiet")
        self.assertEqual(code, 0, err)
        size = os.path.getsize(plain)
        self.assertLess(abs(os.path.getsize(outputs[0]) - size), 0.01 * size)

    def test_quantize_to_gguf_types(self):
        for kind, found in (("q4_0", "Q4_0"), ("q4_1", "Q4_1"), ("q8_0", "Q8_0"),
                            ("mxfp4", "MXFP4"), ("iq4_nl", "IQ4_NL")):
            report = self.quantize_to_gguf(self.path("model.gguf"), "--gguf-type", kind,
                                           "--keep-dense", r".*layers\.0\..*down_proj")
            self.assertEqual({layer["scheme"] for layer in report["layers"]}, {found})
            self.assertEqual(len(report["layers"]), 27)
        report = self.quantize_to_gguf(self.path("model.gguf"), "--method", "rtn", "--gguf-type",
                                       "q5_k", "--embedding-type", "q8_0")
        self.assertEqual({layer["scheme"] for layer in report["layers"]}, {"Q5_K"})

    def test_quantize_to_gguf_refuses(self):
        flags = ["-o", self.path("model.gguf"), "--quiet"]
        gguf = [*flags, "--format", "gguf"]
        for more in (["--scheme", "w4a16"], ["--group-size", "32"], ["--asymmetric"],
                     ["--budget", "4.5bits"], ["--rotate"], ["--quantize-head"],
                     ["--kv-scheme", "fp8"], ["--rule", ".*=w8a16"]):
            self.assert_fails(2, [more[0], "not for gguf"], "quantize", self.model, *gguf, *more)
        self.assert_fails(2, ["--target vllm", "--target llama.cpp"], "quantize", self.model, *gguf,
                          "--target", "vllm")
        self.assert_fails(2, ["--target llama.cpp", "--format gguf --gguf-type q8_0"], "quantize",
                          self.model, "-o", self.path("folder"), "--quiet", "--scheme", "w8a8", "--target", "llama.cpp")
        self.assert_fails(2, ["--target llama.cpp", "--tp"], "plan", self.model, "--format", "gguf",
                          "--target", "llama.cpp", "--tp", "2")
        self.assert_fails(2, ["--method", "gptq and rtn"], "quantize", self.model, *gguf,
                          "--method", "awq")
        self.assert_fails(2, ["--gguf-type", "'f16' is not one of", "q4_k_m"], "quantize",
                          self.model, *gguf, "--gguf-type", "f16")
        self.assert_fails(2, ["--gguf-type", "only for --format gguf"], "quantize", self.model,
                          *flags, "--gguf-type", "q4_0")
        self.assert_fails(2, ["no layer to quantize"], "quantize", self.model, *gguf,
                          "--keep-dense", ".*")
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_target(self):
        output = self.path("model.gguf")
        report = self.quantize_to_gguf(output, "--target", "llama.cpp")
        self.assertNotIn("block_fallback", [event["kind"] for event in report["events"]])
        code, out, err = run("verify", output, "--target", "llama.cpp")
        self.assertEqual(code, 0, out + err)
        code, out, _ = run("verify", output, "--target", "sglang")
        self.assertEqual(code, 1)
        self.assertIn("--target llama.cpp", out)

    def test_imatrix(self):
        """Both formats hold the same numbers, and make convert round otherwise."""
        files = {}
        for name, more in (("new.gguf", []), ("old.dat", ["--legacy"])):
            files[name] = self.path(name)
            code, out, err = run("imatrix", self.model, "-o", files[name], "--samples", "4",
                                 "--sequence-length", "128", "--json", *more)
            self.assertEqual(code, 0, err)
            self.assertEqual(json.loads(out)["layers"], 28)
            self.assertEqual(json.loads(out)["tokens"], 512)
        made = []
        for more in ([], ["--imatrix", files["new.gguf"]], ["--imatrix", files["old.dat"]]):
            output = self.path("model.gguf")
            code, _, err = run("convert", self.model, "-o", output, "--format", "gguf",
                               "--gguf-type", "q4_0", "--force", "--quiet", *more)
            self.assertEqual(code, 0, err)
            with open(output, "rb") as file:
                made.append(file.read())
        self.assertEqual(made[1], made[2])
        self.assertNotEqual(made[0], made[1])
        self.assert_fails(2, ["exists already"], "imatrix", self.model, "-o", files["new.gguf"],
                          "--quiet")
        self.assert_fails(2, ["another kind"], "imatrix", self.model, "-o", files["new.gguf"],
                          "--legacy", "--force", "--quiet")


if __name__ == "__main__":
    main()
