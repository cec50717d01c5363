"""What is said to a person."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from indexnet.core.console import tell

PIPED = """
import sys
from indexnet import cli
from indexnet.commands import list as command
from indexnet.core.console import tell

def main(args):
    for number in range(100_000):
        tell(f"line {number}")
    return 1

command.main = main
sys.exit(cli.main(["list", "data"]))
"""


def test_a_reader_that_has_gone_is_no_failure():
    """`indexnet ... | head -1`."""
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, "-c", PIPED], stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        assert os.read(read, 7) == b"line 0\n"
        os.close(read)
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("text", ["[bold]x[/]", ":smile:", "a" * 300, "1.5 'two' /three"])
def test_a_line_is_printed_as_it_is(text, capsys):
    tell(text)
    assert capsys.readouterr().out == f"{text}\n"
