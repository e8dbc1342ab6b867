#!/usr/bin/env python3
"""quantmill inspect and verify.

usage: cli_verify_test.py BINARY SOURCE_ROOT
"""
import json
import os
import shutil

from cli_case import CliCase, main, run


class VerifyTest(CliCase):
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

    def test_verify(self):
        for method in ("rtn", "gptq"):
            folder, _ = self.artifact(method)
            code, out, err = run("verify", folder, "--reference", self.model)
            self.assertEqual((code, err), (0, ""), out)
            self.assertTrue(out.startswith("passed"), out)
        code, out, err = run("verify", self.artifact("rtn")[0], "--json")
        self.assertEqual(json.loads(out)["passed"], True)
        self.assert_fails(3, [], "verify", self.model)

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


if __name__ == "__main__":
    main()
