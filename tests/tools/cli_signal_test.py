#!/usr/bin/env python3
"""Interrupts, aborts, and progress on a terminal.

usage: cli_signal_test.py BINARY SOURCE_ROOT
"""
import glob
import os
import pty
import signal
import subprocess
import time

from cli_case import BINARY, CliCase, hashes, main, run


class SignalTest(CliCase):
    def start_long_run(self, **options):
        """A run that is at work: its temporary folder is there."""
        process = subprocess.Popen([BINARY, "quantize", self.model, "-o", self.path("out"),
                                    "--group-size", "64", "--threads", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        deadline = time.time() + 60
        while not glob.glob(self.path(".out.partial-*")):
            self.assertLess(time.time(), deadline)
            self.assertIsNone(process.poll(), "ended before it could be interrupted")
            time.sleep(0.01)
        return process

    def test_interrupts_leave_nothing(self):
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.start_long_run()
            process.send_signal(sent)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130, err)
            self.assertEqual(out, b"")
            self.assertIn(b"interrupted", err)
            self.assertEqual(os.listdir(self.folder), [])

    def test_a_second_interrupt_stops_at_once(self):
        process = self.start_long_run()
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(os.listdir(self.folder), [])

    def start_and_finish_blocks(self):
        """A run that has finished a block, or several, and is at work on the next."""
        process = subprocess.Popen([BINARY, *self.long_run()], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        deadline = time.time() + 120
        while not glob.glob(self.path(".out.savepoints/block-00000.json")):
            self.assertLess(time.time(), deadline)
            self.assertIsNone(process.poll(), "ended before it could be interrupted")
            time.sleep(0.01)
        return process

    def long_run(self, out="out"):
        return ["quantize", self.model, "-o", self.path(out), "--group-size", "64", "--samples",
                "32", "--sequence-length", "256", "--effort", "fast", "--threads", "1"]

    def assert_resumed_as_whole(self):
        code, _, err = run(*self.long_run(), "--resume")
        self.assertEqual(code, 0, err)
        self.assertIn("going on after", err)
        code, _, err = run(*self.long_run("whole"))
        self.assertEqual(code, 0, err)
        self.assertEqual(hashes(self.path("out")), hashes(self.path("whole")))

    def test_what_was_finished_serves_the_next_run(self):
        process = self.start_and_finish_blocks()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, err)
        self.assertIn(b"the same command with --resume goes on from there", err)
        self.assertEqual(os.listdir(self.folder), [".out.savepoints"])
        self.assert_fails(2, ["--resume goes on from there", "--force begins again"],
                          *self.long_run())
        self.assert_resumed_as_whole()
        self.assertEqual(sorted(os.listdir(self.folder)), ["out", "whole"])

    def test_a_killed_run_is_resumed(self):
        process = self.start_and_finish_blocks()
        process.kill()
        process.communicate(timeout=60)
        self.assert_resumed_as_whole()

    def test_an_abort_exits_70(self):
        process = self.start_long_run()
        process.send_signal(signal.SIGABRT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 70)
        self.assertIn(b"bug", err)

    def test_progress_on_a_terminal(self):
        master, slave = pty.openpty()
        process = subprocess.Popen([BINARY, "quantize", self.model, "-o", self.path("out"),
                                    "--group-size", "64", "--samples", "16",
                                    "--sequence-length", "128"],
                                   stdout=subprocess.PIPE, stderr=slave,
                                   env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the terminal is gone
                break
            if not part:
                break
            shown += part
        out, _ = process.communicate(timeout=60)
        os.close(master)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b"\rquantizing [", shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown[-80:])
        self.assertNotIn(b"\x1b", out)


if __name__ == "__main__":
    main()
