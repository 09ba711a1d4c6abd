#!/usr/bin/python3
"""The live table in a terminal that is resized while it draws, and left by Ctrl-C. Needs Debian's python3-pyte.

Usage: terminal_test.py BIN_DIR"""

import fcntl
import os
import pathlib
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time

try:
    import pyte
except ImportError:
    sys.exit("terminal_test.py: needs python3-pyte: scripts/install_packages.sh test")


def check(condition, message):
    if not condition:
        raise AssertionError(message)


class Terminal:
    """A child on a pseudo terminal, and what a person would see of it."""

    def __init__(self, arguments, columns, rows):
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(arguments[0], arguments)
        self.modes = termios.tcgetattr(self.fd)
        self.resize(columns, rows)
        self.raw = b""

    def resize(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def read(self, seconds):
        """False when the child has closed the terminal."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                return True
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.raw += data
            self.stream.feed(data)
        return True

    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    def wait_for(self, what, condition, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            alive = self.read(0.1)
            if condition(self.lines()):
                return
            check(alive, f"ended before {what}:\n" + "\n".join(self.lines()))
        raise AssertionError(f"waited {seconds} s in vain for {what}:\n" + "\n".join(self.lines()))


def row(lines, start):
    return [line for line in lines if line.startswith(start)]


def main():
    bin_dir = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        (work / "cluster.yaml").write_text("name: home\nportal: hub\nportal_address: 127.0.0.1\ndevices:\n"
                                           "  - {name: hub, memory_mib: 1024, speed: 0.5}\n  - {name: pi, memory_mib: 512, speed: 0.5}\n"
                                           "default_link: {mbps: 1000, latency_ms: 0.1}\n")
        terminal = Terminal([str(bin_dir / "ecopipe-train"), "--local", "--cluster", str(work / "cluster.yaml"), "--model", "lenet5",
                             "--data", "fashion-mnist", "--data-limit", "1600", "--epochs", "400", "--out", str(work / "run")], 110, 30)
        try:
            stepping = lambda lines: any("step " in line and "/10000" in line for line in lines)
            terminal.wait_for("the table", lambda lines: stepping(lines) and row(lines, "pi ") and "working" in row(lines, "pi ")[0], 120)
            check(len(row(terminal.lines(), "device ")) == 1, "one heading")
            # Narrower, lower, and back; a line of the log must not leave half a table behind.
            for columns, rows in ((60, 12), (200, 40), (25, 6), (110, 30)):
                terminal.resize(columns, rows)
                terminal.read(1.5)
            lines = terminal.lines()
            terminal.wait_for("the table after resizing", stepping, 10)
            check(lines[-1] == "" or stepping(lines), "the cursor's row is free")
            check(all(len(line) < 110 for line in lines), "no line wraps")
            check(len(row(lines[-12:], "device ")) <= 1, "one heading at the end:\n" + "\n".join(lines))
            os.write(terminal.fd, b"\x03")
            while terminal.read(5):
                pass
            _, status = os.waitpid(terminal.pid, 0)
            terminal.pid = None
            check(os.WIFEXITED(status) and os.WEXITSTATUS(status) == 130, f"Ctrl-C ends it with 130, found {status}")
            check(terminal.screen.cursor.x == 0, "the cursor stands at a line's begin")
            for sequence in (b"\x1b[?25l", b"\x1b[?1049h", b"\x1b[?7l"):
                check(sequence not in terminal.raw, f"it changed the terminal: {sequence}")
            print("\n".join(line for line in terminal.lines() if line))
        finally:
            if terminal.pid:
                os.kill(terminal.pid, signal.SIGKILL)
                os.waitpid(terminal.pid, 0)
    print("terminal_test.py: passed")


main()
