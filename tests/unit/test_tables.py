"""Tables that people read: nothing in them is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Column, Table

from dmaml.deploy.cli import run_cli
from dmaml.deploy.experiments import NAMES
from dmaml.deploy.tables import show_table

WORDS = "several words that need more than one line of a narrow terminal"
DIGEST = "0123456789abcdef" * 4


def shown(is_terminal: bool) -> list[str]:
    table = Table(Column("name", no_wrap=True), "what", "digest")
    table.add_row("a_name_that_is_rather_long", WORDS, DIGEST)
    file = io.StringIO()
    show_table(Console(file=file, width=60, force_terminal=is_terminal, color_system=None), table)
    return file.getvalue().splitlines()


def test_a_pipe_gets_every_row_in_one_line():
    (row,) = (line for line in shown(is_terminal=False) if "a_name" in line)

    assert WORDS in row
    assert DIGEST in row


def test_a_terminal_gets_cells_in_several_lines_and_whole_names():
    lines = shown(is_terminal=True)

    assert max(map(len, lines)) <= 60
    assert any("a_name_that_is_rather_long" in line for line in lines)
    rows = [line.split("│") for line in lines if line.startswith("│")]
    assert "".join(row[3].strip() for row in rows) == DIGEST
    assert " ".join(row[2].strip() for row in rows).split() == WORDS.split()
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("columns", ["80", "50"])
def test_the_list_of_experiments_has_whole_names(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)

    assert run_cli(["repro"]) == 0

    words = capsys.readouterr().out.split()
    assert set(NAMES) <= set(words)
