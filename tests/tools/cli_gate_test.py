#!/usr/bin/env python3
"""quantmill gate.

usage: cli_gate_test.py BINARY SOURCE_ROOT
"""
import json
import os
import shutil
import xml.etree.ElementTree as xml
from html.parser import HTMLParser

from cli_case import CliCase, hashes, main, run


class WellFormed(HTMLParser):
    """Every element is closed, in order; those that have no end are left out."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


class GateTest(CliCase):
    def limits(self, text):
        path = self.path("limits.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def gate(self, artifact, limits, *flags):
        return run("gate", artifact, "--reference", self.model, "--limits", self.limits(limits),
                   *flags)

    protocol = "window: 128\nmax_windows: 6\n"

    def test_kept_and_broken(self):
        artifact = self.artifact("gptq")[0]
        before = hashes(artifact)
        text = ["--text", self.text]
        code, out, err = self.gate(artifact, "kl: 1\ntop1_agreement: 50%\n" + self.protocol, *text)
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith("passed " + artifact), out)
        self.assertIn("6 windows of 128 tokens of evaluation.txt", out)
        code, out, err = self.gate(artifact, "kl: 1e-6\n" + self.protocol, *text, "--json")
        self.assertEqual((code, err), (1, ""))
        report = json.loads(out)
        self.assertFalse(report["passed"])
        kl, fallbacks = report["checks"]
        self.assertEqual((kl["key"], kl["passed"], kl["limit"]), ("kl", False, 1e-6))
        self.assertGreater(kl["half_width"], 0)
        self.assertEqual(kl["measured"], report["evaluated"]["models"][0]["kl_mean"])
        self.assertEqual((fallbacks["key"], fallbacks["measured"]), ("max_fallbacks", 0))
        self.assertEqual(hashes(artifact), before)

    def test_the_same_numbers_as_eval(self):
        artifact = self.artifact("rtn")[0]
        code, out, err = run("eval", artifact, "--reference", self.model, "--text", self.text,
                             "--window", "128", "--max-windows", "6", "--json")
        self.assertEqual(code, 0, err)
        kl = json.loads(out)["models"][0]["kl_mean"]
        for limit, want in ((kl * (1 + 1e-9), 0), (kl * (1 - 1e-9), 1)):
            code, out, err = self.gate(artifact, f"kl: {limit!r}\n" + self.protocol, "--text",
                                       self.text)
            self.assertEqual(code, want, out + err)

    def test_files_for_servers_and_people(self):
        artifact = self.artifact("rtn")[0]
        files = ["--junit", self.path("gate.xml"), "--html", self.path("gate.html")]
        for _ in range(2):  # the second run replaces what the first wrote
            code, _, err = self.gate(artifact, "kl: 1e-6\nflips: 50%\n" + self.protocol, "--text",
                                     self.text, *files)
            self.assertEqual(code, 1, err)
        suite = xml.parse(self.path("gate.xml")).getroot().find("testsuite")
        self.assertEqual((suite.get("tests"), suite.get("failures")), ("4", "1"))
        failed = [case.get("name") for case in suite if case.find("failure") is not None]
        self.assertEqual(failed, ["kl"])
        with open(self.path("gate.html"), encoding="utf-8") as file:
            page = file.read()
        self.assertEqual(WellFormed(page).open, [])
        self.assertIn("model.layers.0.", page)
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["gate.html", "gate.xml", "limits.yaml"])

    def test_a_damaged_file_fails(self):
        folder = self.path("damaged")
        shutil.copytree(self.artifact("gptq")[0], folder)
        with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
            file.seek(-2000, os.SEEK_END)
            file.write(b"\xff" * 100)
        code, out, err = self.gate(folder, "kl: 10\n" + self.protocol, "--text", self.text,
                                   "--json", "--junit", self.path("gate.xml"))
        self.assertEqual((code, err), (1, ""))
        report = json.loads(out)
        self.assertFalse(report["verified"]["passed"])
        self.assertIsNone(report["evaluated"])
        self.assertIn("damaged", report["checks"][0]["note"])
        suite = xml.parse(self.path("gate.xml")).getroot().find("testsuite")
        self.assertEqual(suite.get("failures"), "2")

    def test_fallbacks_are_those_of_the_record(self):
        folder = self.path("fallback")
        shutil.copytree(self.artifact("gptq")[0], folder)
        record = os.path.join(folder, "quantmill.json")
        with open(record, encoding="utf-8") as file:
            content = json.load(file)
        content["events"].append({"kind": "round_to_nearest_fallback", "where": "x", "what": "y",
                                  "is_fallback": True})
        with open(record, "w", encoding="utf-8") as file:
            json.dump(content, file)
        self.assertEqual(self.gate(folder, "weight_bytes: 1GB")[0], 1)
        self.assertEqual(self.gate(folder, "max_fallbacks: 1")[0], 0)
        os.remove(record)
        code, out, _ = self.gate(folder, "weight_bytes: 1GB")
        self.assertEqual(code, 0)
        self.assertIn("no quantmill.json", out)
        self.assertEqual(self.gate(folder, "max_fallbacks: 1")[0], 1)

    def test_what_the_file_alone_tells_needs_no_text(self):
        artifact = self.artifact("rtn")[0]
        code, out, err = self.gate(artifact, "weight_bytes: 1GB")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(self.gate(artifact, "weight_bytes: 1kB")[0], 1)
        flags = ["--reference", self.model, "--limits", self.limits("kl: 1")]
        self.assert_fails(2, ["--text", "limits.yaml"], "gate", artifact, *flags)

    def test_speedup(self):
        artifact = self.artifact("rtn")[0]
        short = "\nprompt_tokens: 16\ndecode_tokens: 4\nbatch: 2\n"
        code, out, err = self.gate(artifact, "speedup: 0.001" + short, "--json")
        self.assertEqual((code, err), (0, ""))
        report = json.loads(out)
        row = report["benched"]["models"][0]["rows"][0]
        self.assertEqual((row["batch"], row["speedup"]), (2, report["checks"][0]["measured"]))
        self.assertEqual(self.gate(artifact, "speedup: 1000" + short)[0], 1)

    def test_bad_input(self):
        artifact = self.artifact("rtn")[0]
        text = ["--reference", self.model, "--text", self.text, "--limits"]
        self.assert_fails(3, ["nowhere.yaml"], "gate", artifact, *text, self.path("nowhere.yaml"))
        self.assert_fails(2, ["limits.yaml:2: unknown key 'klp99'; did you mean 'kl_p99'?"],
                          "gate", artifact, *text, self.limits("kl: 1\nklp99: 2\n"))
        self.assert_fails(3, ["evaluation.txt", "another text"], "gate", artifact, *text,
                          self.limits("kl: 1\ntokens_sha256: " + 64 * "0"))
        self.assert_fails(3, ["nothing_here"], "gate", self.path("nothing_here"), *text,
                          self.limits("kl: 1"))
        with open(self.path("mine.html"), "w", encoding="utf-8") as file:
            file.write("my notes")
        self.assert_fails(2, ["mine.html"], "gate", artifact, *text, self.limits("kl: 1"),
                          "--html", self.path("mine.html"))
        with open(self.path("mine.html"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "my notes")


if __name__ == "__main__":
    main()
