#!/usr/bin/env python3
"""Checks calib_data against its manifest: hashes, disjoint texts, a deterministic generator. Standard library only."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(ROOT, "calib_data")
sys.dont_write_bytecode = True
sys.path[:0] = [DATA, os.path.join(ROOT, "scripts")]

from generate_text import CHARACTERS, make_split  # noqa: E402
from textgen import passages as p  # noqa: E402


def read(name):
    with open(os.path.join(DATA, name), "rb") as f:
        return f.read()


class Manifest(unittest.TestCase):
    def setUp(self):
        self.manifest = json.loads(read("MANIFEST.json"))

    def test_every_file_has_its_size_and_hash(self):
        for name, entry in self.manifest["files"].items():
            data = read(name)
            self.assertEqual(len(data), entry["bytes"], name)
            self.assertEqual(hashlib.sha256(data).hexdigest(), entry["sha256"], name)

    def test_lists_every_data_file(self):
        found = {"calibration.txt", "evaluation.txt"} | {
            "sample_model/" + n for n in os.listdir(os.path.join(DATA, "sample_model"))
        }
        self.assertEqual(found, set(self.manifest["files"]))

    def test_model_beats_the_ngrams_and_rounding_hurts(self):
        m = self.manifest["measured"]
        self.assertLess(m["perplexity_fp16"], 0.8 * m["perplexity_trigram_kneser_ney"])
        self.assertLess(m["perplexity_trigram_kneser_ney"], m["perplexity_unigram"])
        self.assertGreater(m["rtn_increase_percent"], 2.0)
        self.assertGreater(m["kl_fp16_rtn_nats_per_token"], 0.0)


class Text(unittest.TestCase):
    def test_calibration_and_evaluation_share_no_passage(self):
        first = p.split_text(read("calibration.txt").decode("utf-8"))
        second = p.split_text(read("evaluation.txt").decode("utf-8"))
        self.assertEqual(len(set(first)), len(first))
        self.assertEqual(len(set(second)), len(second))
        self.assertFalse(set(first) & set(second))

    def test_training_shares_no_passage_with_either(self):
        train = {t for _, t in make_split("train", characters=300_000)}
        for name in ("calibration", "evaluation"):
            self.assertFalse(train & set(p.split_text(read(name + ".txt").decode("utf-8"))), name)

    def test_generator_gives_the_same_bytes(self):
        for split in ("calibration", "evaluation"):
            self.assertEqual(p.join(make_split(split)).encode("utf-8"), read(split + ".txt"), split)

    def test_generator_ignores_the_hash_seed(self):
        with tempfile.TemporaryDirectory() as folder:
            for hash_seed in ("0", "4711"):
                env = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONDONTWRITEBYTECODE="1")
                subprocess.run(
                    [sys.executable, os.path.join(ROOT, "scripts", "generate_text.py"), "--dir", folder],
                    env=env,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                with open(os.path.join(folder, "calibration.txt"), "rb") as f:
                    self.assertEqual(f.read(), read("calibration.txt"), hash_seed)

    def test_every_prefix_is_a_mix(self):
        items = make_split("calibration")
        domains = {d for d, _, _ in p.DOMAINS}
        self.assertEqual({d for d, _ in items[:100]}, domains)
        self.assertGreaterEqual(
            sum(len(t) for _, t in items), CHARACTERS["calibration"] - len(p.SEPARATOR) * len(items)
        )

    def test_templates_are_filled(self):
        for domain, text in make_split("calibration"):
            if domain not in ("code", "tables"):
                for mark in ("{", "}", "|", "None"):
                    self.assertNotIn(
                        mark, text.replace("| ", "").replace(" |", "") if domain == "web" else text, domain
                    )


class SampleModel(unittest.TestCase):
    def setUp(self):
        self.config = json.loads(read("sample_model/config.json"))
        data = read("sample_model/model.safetensors")
        (size,) = struct.unpack("<Q", data[:8])
        self.tensors = json.loads(data[8 : 8 + size])
        self.tensors.pop("__metadata__", None)
        self.payload = len(data) - 8 - size

    def test_tensors_are_fp16_and_complete(self):
        c = self.config
        hidden, mlp, rows, dim = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["head_dim"]
        q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
        expected = {"model.embed_tokens.weight": [rows, hidden], "model.norm.weight": [hidden]}
        for i in range(c["num_hidden_layers"]):
            base = f"model.layers.{i}."
            expected |= {
                base + "self_attn.q_proj.weight": [q, hidden],
                base + "self_attn.k_proj.weight": [kv, hidden],
                base + "self_attn.v_proj.weight": [kv, hidden],
                base + "self_attn.o_proj.weight": [hidden, q],
                base + "mlp.gate_proj.weight": [mlp, hidden],
                base + "mlp.up_proj.weight": [mlp, hidden],
                base + "mlp.down_proj.weight": [hidden, mlp],
                base + "input_layernorm.weight": [hidden],
                base + "post_attention_layernorm.weight": [hidden],
            }
        self.assertEqual({n: t["shape"] for n, t in self.tensors.items()}, expected)
        self.assertEqual({t["dtype"] for t in self.tensors.values()}, {"F16"})
        self.assertEqual(max(t["data_offsets"][1] for t in self.tensors.values()), self.payload)

    def test_weights_are_finite(self):
        data = read("sample_model/model.safetensors")
        halves = struct.unpack(f"<{self.payload // 2}H", data[len(data) - self.payload :])
        self.assertFalse(any(h & 0x7C00 == 0x7C00 for h in halves))

    def test_tokenizer_fits_the_config(self):
        tokenizer = json.loads(read("sample_model/tokenizer.json"))
        self.assertEqual(sorted(tokenizer["model"]["vocab"].values()), list(range(self.config["vocab_size"])))
        special = {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
        self.assertEqual(special["<|endoftext|>"], self.config["bos_token_id"])
        self.assertTrue(tokenizer["pre_tokenizer"]["use_regex"])
        self.assertFalse(tokenizer["pre_tokenizer"]["add_prefix_space"])
        self.assertIn("<|im_start|>", json.loads(read("sample_model/tokenizer_config.json"))["chat_template"])


if __name__ == "__main__":
    unittest.main()
