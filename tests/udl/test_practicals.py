"""Every figure of every practical, in every engine; the commands; the pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import image, pyplot

import udlbridge as ub
from practical_figures import INDEX, QUICK, check_figures
from udlbridge.cli.practicals import command
from udlbridge.errors import DataError, OptionError
from udlbridge.udl import practicals
from udlbridge.udl.practicals import Row, overview

matplotlib.use("Agg")


@pytest.mark.sampled
@pytest.mark.parametrize("name", QUICK)
def test_every_figure_holds(name: str, backend: str) -> None:
    """Of the other practicals too: `test_mutations.py` computes them all, and is not quick."""
    check_figures(name, backend, practicals.run(name, backend))


LONG = ("01_shallow_and_deep", "07_convolution", "08_mnist1d", "10_decoding", "14_values_and_slopes")
"""Practicals that train networks or draw a dozen panels, which takes seconds."""


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in practicals.names()]
)
def test_every_practical_draws(name: str, tmp_path: Path) -> None:
    paths = practicals.save_pictures(name, tmp_path, "reference")
    assert paths[0].name == f"{name}.png"
    index = INDEX.read_text(encoding="utf-8")
    for path in paths:
        assert image.imread(path).shape[1] >= 1200
        assert (practicals.folder() / "images" / path.name).is_file()
        assert f"(practicals/images/{path.name})" in index


@pytest.mark.costly("10_decoding")
@pytest.mark.parametrize("name", ["10_decoding", "13_gpt2"])
def test_what_is_text_is_printed_and_not_drawn(name: str) -> None:
    for figure in practicals.drawn(name, "reference").values():
        assert all(axis.has_data() for axis in figure.axes)
        pyplot.close(figure)


def test_maps_of_values_with_signs_have_zero_in_the_middle() -> None:
    (figure,) = practicals.drawn("11_input_derivatives", "reference").values()
    bars = {axis.get_title(): axis.collections[0] for axis in figure.axes if axis.get_title()}
    for title, shades in bars.items():
        signed = title != "output 0"
        assert (shades.get_cmap().name == practicals.SIGNED) == signed
        assert (shades.norm.vmin == -shades.norm.vmax) == signed
    pyplot.close(figure)


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
    page.write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match=r"page.md cannot be read .*UTF-8"):
        overview.write(page, {"x": text})
    page.write_text("nothing", encoding="utf-8")
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
    assert written["backends"] == ["reference"]
    assert len(written["practicals"]["02_losses"]["engines"]["reference"]["rows"]) > 10


def test_one_command_runs_several_engines_and_says_what_is_of_the_data_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def rows(backend: str) -> list[Row]:
        found = [practicals.closed_form("a", 1.0, 1.0 if backend == "torch" else 1.5)]
        return [*found, practicals.asserted("images", 4, 4, engine=False)]

    monkeypatch.setattr(practicals.load("losses"), "rows", rows)
    target = tmp_path / "both.json"
    arguments = ["run", "losses", "--backend", "torch,reference", "--json", str(target)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 1
    assert result.output.count("images") == 1
    assert "1 of 1 figures hold with backend torch\n" in result.output
    assert "0 of 1 figures hold with backend reference\n" in result.output
    assert "1 of 1 figures hold, of the data alone" in result.output
    written = json.loads(target.read_text())
    assert (written["backends"], written["ok"]) == (["torch", "reference"], False)
    found = written["practicals"]["02_losses"]
    assert [row["quantity"] for row in found["data"]] == ["images"]
    for name, ok in (("torch", True), ("reference", False)):
        assert [(row["quantity"], row["ok"]) for row in found["engines"][name]["rows"]] == [("a", ok)]


def test_a_table_sets_figures_of_the_data_apart() -> None:
    rows = [practicals.asserted("images", 4, 4, engine=False), practicals.closed_form("a", 1.0, 1.0)]
    computed, data = practicals.table(rows).split("of the data alone")
    assert "images" not in computed
    assert "images" in data
    text = overview.comparison({"torch": rows, "reference": rows})
    assert "| images | 4 | 4 |" in text
    assert "| a | another computation | 1 | 1 |" in text
    entries = {
        name: [Row("array", practicals.CLOSED_FORM, x, x + 0.5, 1.0)] for name, x in (("torch", 1.0), ("julia", 7.0))
    }
    assert "| array | another computation | 5e-01 off | 5e-01 off |" in overview.comparison(entries)
    both = overview.comparison({"torch": [*rows, practicals.printed("b", "2.0", 2.0)]})
    assert "| b | 2.0 | 2.0 |" in both
    assert "| a |" not in both


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
    failed, held = (written["practicals"][name]["engines"]["reference"] for name in practicals.names()[1:])
    assert "not installed" in failed["error"]
    assert held["rows"][0]["ok"] is True


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_targets_are_looked_at_before_computing(option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def computes(backend: str) -> list[Row]:
        raise AssertionError("computed before looking at the target")

    monkeypatch.setattr(practicals.load("losses"), "rows", computes)
    (tmp_path / "file").touch()
    target = tmp_path / "file/x"
    result = CliRunner().invoke(command, ["run", "losses", "--backend", "reference", option, str(target)])
    assert isinstance(result.exception, OptionError)
    assert str(target) in str(result.exception)


def test_skipped_figures_are_not_counted_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practicals.load("losses"), "rows", lambda backend: [practicals.skipped("a", "no weights")])
    result = CliRunner().invoke(command, ["run", "losses", "--backend", "reference"], standalone_mode=False)
    assert result.return_value == 0
    assert "nothing to hold with backend reference, 1 skipped" in result.output


@pytest.mark.costly("nonsense")
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


class Words:
    """Stands in for GPT-2's tokenizer; it says a sentence of the practical where it is given that sentence's tokens."""

    vocab_size = 2100

    def __init__(self, sentences: dict[tuple[int, ...], str]) -> None:
        self._sentences = sentences

    def __call__(self, text: str) -> dict[str, list[int]]:
        assert text == "The best thing about Bath is"
        return {"input_ids": [3, 4]}

    def decode(self, tokens: Any) -> str:
        return self._sentences.get(tuple(tokens), f"<{len(tokens)} tokens>")


def continued(model: ub.Model, choose: Any) -> tuple[int, ...]:
    """Ten tokens behind [3, 4], each chosen from the probabilities of all."""
    tokens = [3, 4]
    for _ in range(10):
        logits = ub.outputs(model, np.array([tokens]), backend="reference")[0]
        tokens.append(int(choose(np.exp(logits) / np.exp(logits).sum())))
    return tuple(tokens[2:])


@pytest.mark.slow
def test_gpt2_is_skipped_without_weights_and_decoded_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small network in its place: sentences that come from the right tokens hold, and the others do not."""
    practical = practicals.load("gpt2")
    model = ub.models.gpt2(vocabulary=2100, length=16, width=8, heads=2, blocks=1, seed=1, dtype="float64")
    draws = np.random.RandomState(0)
    sentences = {
        "sampling": continued(model, lambda p: draws.choice(len(p), p=p)),
        "greedy": continued(model, np.argmax),
        "second most likely": continued(model, lambda p: np.argsort(-p)[1]),
        "2001st most likely": continued(model, lambda p: np.argsort(-p)[2000]),
    }
    words = Words({tokens: practical.SAYS[name] for name, tokens in sentences.items()})
    monkeypatch.setattr(practical, "pretrained", lambda: (model, words))
    practical.said.cache_clear()
    rows = practical.rows("reference")[-7:]
    assert {row.quantity.split(":")[0]: row.ok for row in rows} == {name: name in sentences for name in practical.SAYS}
    text = practical.report("reference")
    assert "Number of tokens in dictionary = 2100" in text
    assert "nucleus 0.2, token 10: choosing from" in text
    assert "beam 4 after 10: log probability" in text
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "transformers", None)
    practical.said.cache_clear()
    skipped = practical.rows("reference")[-7:]
    assert all(row.ok and row.origin == practicals.SKIPPED for row in skipped)
    assert skipped[0].to_dict()["figure"] is None
    assert "skipped: beam search: says" in practicals.table(skipped)
    assert "no transformers, or no weights here" in practicals.table(skipped)
    assert "how to get them" in practical.report("reference")
