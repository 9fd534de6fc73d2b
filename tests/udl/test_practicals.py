"""Every figure of every practical, in every engine; the commands; the pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import image

from udlbridge.cli.practicals import command
from udlbridge.errors import DataError, OptionError
from udlbridge.udl import practicals
from udlbridge.udl.practicals import Row, overview

matplotlib.use("Agg")

PRINTED = {
    "02_losses": (
        "0.119 0.800 0.200 0.200 0.500 0.300 0.000010624 11.452419564 2.020992572 0.000070237 9.563639387 0.000000041 "
        "17.015457867 0.27"
    ),
    "03_line_search": "12.367",
    "04_gabor": "16.419",
    "05_backpropagation": (
        "1.230 0.942 1.623 5.068 7.137 0.657 2.372 0.864 "  # f0 to h4
        "-0.632 0.476 0.953 4.830 -1.932 -0.646 "  # by h3 to f0
        "1.000 0.864 -0.211 -0.139 0.476 2.415 4.830 4.552 -0.646 "  # by beta4, omega4 to beta0
        "1.907"
    ),
    "09_high_dimensions": "1036.321",
    "11_input_derivatives": "0.0903533 0.0903533",
    "12_tensors_and_descent": "6 4 10 256 256 3 6",
}
"""All figures that the sources print or assert; a practical checks exactly these, as often."""


INDEX = practicals.folder().parent / "README.md"


@pytest.mark.sampled
@pytest.mark.parametrize("name", practicals.names())
def test_every_figure_holds(name: str, backend: str) -> None:
    rows = practicals.run(name, backend)
    assert rows
    wrong = [row for row in rows if not row.ok]
    assert not wrong, "\n" + practicals.table(wrong)
    checked = sorted(row.expected for row in rows if row.origin == practicals.PRINTED)
    assert sorted(float(text) for text in PRINTED.get(name, "").split()) == checked
    _check_index(name, backend, rows)


def _check_index(name: str, backend: str, rows: list[Row]) -> None:
    """The table in the index shows the figures of the source, and ours, as they come out here."""
    page = INDEX.read_text(encoding="utf-8")
    start, end = overview.START.format(name), overview.END
    assert start in page
    shown = page.split(start)[1].split(end)[0]
    lines, wanted = _cells(shown), _cells(overview.comparison({backend: rows}))
    assert [line[:2] for line in lines] == [line[:2] for line in wanted], f"udlbridge practicals table {name} --write"
    column = lines[0].index(backend) if lines and backend in lines[0] else None
    sources = [row for row in rows if row.of_source]
    for row, line, here in zip(sources, lines[2:], wanted[2:], strict=True):
        # Where the last digit of the source is free, as after a training, it may be another one on another machine.
        if column is not None and (row.digits is None or row.tolerance < 10.0**-row.digits):
            assert line[column] == here[2]


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", practicals.names())
def test_every_practical_draws(name: str, tmp_path: Path) -> None:
    paths = practicals.save_pictures(name, tmp_path, "reference")
    assert paths[0].name == f"{name}.png"
    index = INDEX.read_text(encoding="utf-8")
    for path in paths:
        assert image.imread(path).shape[1] >= 1200
        assert (practicals.folder() / "images" / path.name).is_file()
        assert f"(practicals/images/{path.name})" in index


def test_index_is_complete() -> None:
    index = INDEX.read_text(encoding="utf-8")
    for name in practicals.names():
        assert f"practicals/{name}.py" in index
        assert overview.START.format(name) in index


def test_overview_puts_engines_beside_the_source(tmp_path: Path) -> None:
    rows = [practicals.printed("a", "0.12", 0.1234), practicals.solved("b", "3.0", 3.2, tolerance=0.5)]
    rows += [practicals.closed_form("c", 1.0, 1.0), practicals.closed_form("d", 1.0, 2.0)]
    text = overview.comparison({"torch": rows, "reference": [practicals.printed("a", "0.12", 0.2), *rows[1:]]})
    assert "| a | 0.12 | 0.12 | 0.20 **differs** |" in text
    assert r"| b | 3.0\* | 3.2 | 3.2 |" in text
    assert "Further figures that hold: 1 of 2 with torch, 1 of 2 with reference." in text
    page = tmp_path / "page.md"
    page.write_text(f"before\n{overview.marked('x', 'old')}\nafter", encoding="utf-8")
    overview.write(page, {"x": text})
    assert page.read_text(encoding="utf-8") == f"before\n{overview.marked('x', text)}\nafter"
    with pytest.raises(OptionError, match="no place for y"):
        overview.write(page, {"y": text})
    with pytest.raises(OptionError, match="different lists"):
        overview.comparison({"torch": rows, "reference": rows[1:]})


def test_a_gap_shows_the_entry_that_is_farthest_off() -> None:
    row = practicals.largest_gap("a", np.array([1.0, 2.5, 3.0]), np.array([1.0, 2.0, 3.0]))
    assert (row.expected, row.figure, row.ok) == (2.0, 2.5, False)
    row = practicals.largest_gap("a", np.array([1.0, -3.0]), np.array([1.0, -3.0]))
    assert (row.expected, row.figure, row.ok) == (-3.0, -3.0, True)
    assert not practicals.largest_gap("a", np.array([1.0, np.nan]), np.ones(2)).ok


def test_a_printed_figure_is_judged_by_its_digits() -> None:
    assert practicals.printed("a", "0.119", 0.11949).ok
    assert practicals.printed("a", "0.119", 0.1185).ok
    assert not practicals.printed("a", "0.119", 0.1196).ok
    assert not practicals.printed("a", "0.119", float("nan")).ok
    assert not Row("a", practicals.BELOW, 37.45, 37.45).ok
    assert not practicals.closed_form("a", 1e-13, 1.2e-12).ok
    assert "DIFFERS" in practicals.table([practicals.closed_form("a", 1.0, 2.0)])


def test_names_numbers_and_unknown_practicals() -> None:
    assert practicals.full_name("2") == practicals.full_name("02") == practicals.full_name("losses") == "02_losses"
    with pytest.raises(OptionError, match="02_losses"):
        practicals.load("nothing")


def test_command_lists_and_runs(tmp_path: Path) -> None:
    listing = CliRunner().invoke(command, [])
    assert listing.exit_code == 0
    assert all(name in listing.output for name in practicals.names())
    target = tmp_path / "result.json"
    arguments = ["run", "losses", "--backend", "reference", "--json", str(target)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 0
    assert "11.45241956" in result.output
    written = json.loads(target.read_text())
    assert written["ok"] is True
    assert len(written["practicals"]["02_losses"]["rows"]) > 10


def test_command_fails_when_a_figure_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [practicals.closed_form("a", 1.0, 1.5)]
    monkeypatch.setattr(practicals.load("losses"), "rows", lambda backend: wrong)
    result = CliRunner().invoke(command, ["run", "losses", "--backend", "reference"], standalone_mode=False)
    assert result.return_value == 1
    assert "0 of 1 figures hold" in result.output


def test_an_error_fails_one_practical_and_the_others_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(backend: str) -> list[Row]:
        raise DataError("the package mnist1d is not installed", remedy="install it")

    monkeypatch.setattr(practicals, "names", lambda: ["02_losses", "08_mnist1d", "09_high_dimensions"])
    monkeypatch.setattr(practicals.load("mnist1d"), "rows", fails)
    for other in ("losses", "high_dimensions"):
        monkeypatch.setattr(practicals.load(other), "rows", lambda backend: [practicals.closed_form("a", 1.0, 1.0)])
    target = tmp_path / "all.json"
    arguments = ["run", "all", "--backend", "reference", "--json", str(target)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 2
    assert "2 of 2 figures hold with backend reference; could not run: 08_mnist1d" in result.output
    assert "mnist1d is not installed" in result.output
    written = json.loads(target.read_text())
    assert written["ok"] is False
    assert list(written["practicals"]) == practicals.names()
    assert "not installed" in written["practicals"]["08_mnist1d"]["error"]
    assert written["practicals"]["09_high_dimensions"]["rows"][0]["ok"] is True


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_targets_are_looked_at_before_computing(option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def computes(backend: str) -> list[Row]:
        raise AssertionError("computed before looking at the target")

    monkeypatch.setattr(practicals.load("losses"), "rows", computes)
    (tmp_path / "file").touch()
    target = tmp_path / ("absent/x.json" if option == "--json" else "file/x")
    result = CliRunner().invoke(command, ["run", "losses", "--backend", "reference", option, str(target)])
    assert isinstance(result.exception, OptionError)
    assert str(target) in str(result.exception)


def test_skipped_figures_are_not_counted_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practicals.load("losses"), "rows", lambda backend: [practicals.skipped("a", "no weights")])
    result = CliRunner().invoke(command, ["run", "losses", "--backend", "reference"], standalone_mode=False)
    assert result.return_value == 0
    assert "0 of 0 figures hold with backend reference, 1 skipped" in result.output


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("02_losses", ["--backend", "nonsense"], "nonsense"),
        ("02_losses", ["--backend", "reference", "--plot", "PLACE/file/x"], "cannot be made"),
        ("08_mnist1d", ["--backend", "reference"], "mnist1d is not installed"),
    ],
)
def test_scripts_say_what_is_wrong_without_a_traceback(
    script: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mnist1d").mkdir()
    (tmp_path / "mnist1d" / "__init__.py").write_text("raise ImportError")
    path = [str(tmp_path), str(Path(practicals.__file__).parents[3])]
    done = subprocess.run(
        [sys.executable, practicals.folder() / f"{script}.py", *(a.replace("PLACE", str(tmp_path)) for a in arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


class StandIn:
    """Stands in for GPT-2: token t is followed by t + 1, or by t + 2 with a little less probability, or by others."""

    @classmethod
    def from_pretrained(cls, name: str, local_files_only: bool) -> StandIn:
        assert (name, local_files_only) == ("gpt2", True)
        return cls()

    def eval(self) -> StandIn:
        return self

    def __call__(self, tokens: Any) -> Any:
        import torch

        logits = -torch.arange(2500, dtype=torch.float64).repeat(*tokens.shape, 1) / 100
        for ahead, value in ((1, 9.0), (2, 8.0)):
            logits.scatter_(-1, (tokens + ahead)[..., None] % 2500, value)
        return SimpleNamespace(logits=logits)


class StandInTokenizer(StandIn):
    def __call__(self, text: str) -> dict[str, list[int]]:
        assert text == "The best thing about Bath is"
        return {"input_ids": [3, 4]}

    def decode(self, tokens: Any) -> str:
        """Greedy choice counts up by one, the second choice by two; the 2001st is far away."""
        if list(tokens) == list(range(5, 15)):
            return " that it's a place where you can go to"
        if list(tokens) == list(range(6, 26, 2)):
            return " the way you get the most bang outta the"
        assert len(tokens) == 10
        assert min(tokens) > 1900
        return " mixed profits partnerships» buy generic+ Honda throttlecont"


def test_gpt2_is_skipped_without_weights_and_decoded_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    practical = practicals.load("gpt2")
    modules = SimpleNamespace(GPT2LMHeadModel=StandIn, GPT2Tokenizer=StandInTokenizer)
    monkeypatch.setitem(sys.modules, "transformers", modules)
    practical.said.cache_clear()
    decoded = practical.rows()
    # For the stand-in the likeliest sequence is the greedy one, so that beam search says another sentence than GPT-2's.
    assert [row.figure for row in decoded] == [0, 1, 1, 1]
    practical.said.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    skipped = practical.rows()
    assert len(skipped) == 4
    assert all(row.ok and row.origin == practicals.SKIPPED for row in skipped)
    assert skipped[0].to_dict()["figure"] is None
    assert "skipped: GPT-2, beam search: no transformers" in practicals.table(skipped)
