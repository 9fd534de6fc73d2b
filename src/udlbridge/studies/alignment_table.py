"""What the alignment notebook prints, beside what the study finds, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from udlbridge.studies.alignment_results import AlignmentStudy

PRINTED = {"regular": (34.16949463, 31.46747589), "slow": (50.26271057, 50.78164291)}
"""Training and test errors in per cent that the notebook prints, after one batch; it calls them accuracies."""


MEASURED = {
    "feature_alignment": "alignment of the features with the labels",
    "ntk_alignment": "alignment of the NTK with the labels",
    "ntk_change": "change of the NTK",
}


def comparison(first: AlignmentStudy, whole: AlignmentStudy) -> str:
    """A line for every figure of the notebook and of the study, a column for every engine.

    Args:
        first: after one batch, where the notebook stops.
        whole: of the same engines, after all epochs.
    """
    engines = list(dict.fromkeys(backend for backend, _ in whole.runs))
    lines = [f"| figure | notebook | {' | '.join(engines)} |", f"|{'---|' * (2 + len(engines))}"]
    for variant, printed in PRINTED.items():
        for key, what, text in zip(("train_error", "test_error"), ("training", "test"), printed, strict=True):
            ours = [f"{100 * value:.2f}" for value in _ends(first, engines, variant, key)]
            lines.append(_line(f"one batch, {variant}: {what} error (%)", f"{text:.2f}", ours))
    for key, what in {"test_error": "test error (%)", **MEASURED}.items():
        for variant in PRINTED:
            found = _ends(whole, engines, variant, key)
            ours = [f"{100 * value:.2f}" if key == "test_error" else f"{value:.4f}" for value in found]
            epoch = whole.table(engines[0], variant)[-1]["epoch"]
            lines.append(_line(f"epoch {epoch}, {variant}: {what}", "", ours))
    return "\n".join(lines)


def _ends(study: AlignmentStudy, engines: Sequence[str], variant: str, key: str) -> list[float]:
    """What every engine has at the end of the study."""
    return [float(study.table(engine, variant)[-1][key] or 0.0) for engine in engines]


def _line(figure: str, printed: str, ours: Sequence[str]) -> str:
    return f"| {figure} | {printed} | {' | '.join(ours)} |"
