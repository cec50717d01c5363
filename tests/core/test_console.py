"""What is said to a person."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time

import pytest

from indexnet.core.console import create_console, note, tell, tracked

PIPED = """
import sys
from indexnet import cli
from indexnet.commands import list as command
from indexnet.core.console import create_console, tell, tracked

def main(args):
    tell("line 0")
    for _ in range(1000):  # more than a pipe holds
        tell("x" * 200)
    print("over", file=sys.stderr)
    return 3

command.main = main
sys.exit(cli.main(["list", "data"]))
"""


def test_a_command_goes_on_when_the_reader_of_its_output_has_gone():
    """`indexnet ... | head -1`: predictions are made to the end."""
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", PIPED], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        assert os.read(read, 7) == b"line 0\n"
        os.close(read)
        assert process.stderr.read() == b"over\n"
    assert process.returncode == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a full disk")
def test_a_command_goes_on_when_the_disk_under_its_log_is_full():
    with open("/dev/full", "wb") as full:
        result = subprocess.run([sys.executable, "-c", PIPED], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 3
    first, last = result.stderr.splitlines()
    assert "standard output" in first
    assert "No space left on device" in first
    assert last == "over"


@pytest.mark.parametrize("text", ["[bold]x[/]", ":smile:", "a" * 300, "1.5 'two' /three"])
def test_a_line_is_printed_as_it_is(text, capsys):
    tell(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_work_elsewhere_than_in_a_terminal_says_now_and_then_how_far_it_is():
    file = io.StringIO()
    assert list(tracked("abc", "counting", 3, console=create_console(file))) == ["a", "b", "c"]
    assert file.getvalue() == ""
    for number in tracked(range(2), "counting", 2, console=create_console(file), every=0.01):
        if number == 1:
            note("tile 3 of 24")
            while "tile 3 of 24" not in file.getvalue():  # in the middle of an item that takes long
                time.sleep(0.01)
    note("nothing is being worked on")
    lines = file.getvalue().splitlines()
    assert all(re.fullmatch(r"counting: [012] of 2(, tile 3 of 24)?, \d+ s", line) for line in lines)
    assert re.match(r"counting: 1 of 2, tile 3 of 24, \d+ s", next(line for line in lines if "tile" in line))


def test_work_in_a_terminal_has_a_bar():
    file = io.StringIO()
    console = create_console(file, force_terminal=True, width=80)
    for number in tracked(range(3), "counting", 3, console=console):
        assert number in (0, 1, 2)
        note("tile 3 of 24")
    assert "counting" in file.getvalue()
    assert "3/3" in file.getvalue()
    assert "tile 3 of 24" in file.getvalue()
