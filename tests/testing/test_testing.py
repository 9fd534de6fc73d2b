"""The assertions and the pytest plugin that users have for their own tests."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from helpers import random_model, samples
from udlbridge.testing import assert_consistent, assert_kernels_close, assert_psd

MODEL = random_model([3, 4, 2], ["tanh", "identity"])


def test_assert_consistent() -> None:
    assert assert_consistent(MODEL, samples(MODEL, 3), backends=["torch", "reference"]).ok


def test_assert_kernels_close_names_the_worst_entry() -> None:
    k = ub.ntk(MODEL, samples(MODEL, 4), backend="reference")
    assert_kernels_close(k, k.copy())
    wrong = k.copy()
    wrong[2, 3] += 1e-9 * np.abs(k).max()
    with pytest.raises(AssertionError, match=r"worst at \(2, 3\).*1\.00e-09 of the largest.*budget 1e-12"):
        assert_kernels_close(wrong, k)
    assert_kernels_close(wrong.astype(np.float32), k)  # float32 on one side: its budget
    wrong[0, 1] = np.nan
    with pytest.raises(AssertionError, match=r"worst at \(0, 1\), .*nan"):
        assert_kernels_close(wrong, k)
    with pytest.raises(AssertionError, match=r"\(4, 4\) and \(3, 4\)"):
        assert_kernels_close(k, k[:3])


def test_assert_psd() -> None:
    x = samples(MODEL, 40)
    assert assert_psd(ub.ntk(MODEL, x, outputs=0, backend="reference"), rank=MODEL.n_params).rank_bound == 26
    with pytest.raises(AssertionError, match="not positive semidefinite"):
        assert_psd(np.diag([1.0, -1.0]))
    with pytest.raises(AssertionError, match=r"eigenvalue 1 lies beyond rank 1"):
        assert_psd(np.eye(2), rank=1)


# Runs in this process forget what they import: they import nothing.
USER_TEST = """
    def test_mine(backend):
        print("engine", backend)
"""

USER_KERNEL = """
    import udlbridge as ub

    def test_mine(backend):
        model = ub.models.notebook_method1()
        assert ub.ntk(model, ub.models.NOTEBOOK_POINTS, backend=backend).shape == (2, 2)
"""

CONFTEST = 'pytest_plugins = ["udlbridge.testing.plugin"]'


def run(
    pytester: pytest.Pytester, *args: str, conftest: str = CONFTEST, fresh_process: bool = False
) -> pytest.RunResult:
    pytester.makeconftest(conftest)
    start = pytester.runpytest_subprocess if fresh_process else pytester.runpytest_inprocess
    return start("-p", "no:faulthandler", "-p", "no:cacheprovider", "-rs", *args)


def test_fixture_runs_once_for_each_engine(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USER_TEST)
    result = run(pytester, "--udlbridge-backends", "torch,reference", "-v")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.fnmatch_lines(["*test_mine?torch? PASSED*", "*test_mine?reference? PASSED*"])


@pytest.mark.usefixtures("julia_nowhere")
def test_missing_julia_is_a_counted_skip_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UDLBRIDGE_REQUIRE", raising=False)
    pytester.makepyfile(USER_TEST)
    result = run(pytester)
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(
        ["*0 tests ran with Julia, 1 were skipped for want of it*", "*because*there is no Julia at /nowhere/julia*"]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("julia_nowhere")
def test_tests_of_other_processes_are_counted(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UDLBRIDGE_REQUIRE", raising=False)
    pytester.makepyfile(USER_KERNEL)
    result = run(pytester, "-n", "2", fresh_process=True)
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*0 tests ran with Julia, 1 were skipped for want of it*", "*because*no Julia at*"])


@pytest.mark.usefixtures("julia_nowhere")
def test_required_julia_is_a_failure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDLBRIDGE_REQUIRE", "julia,torch")
    pytester.makepyfile(USER_TEST)
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*no Julia at /nowhere/julia*What to do:*UDLBRIDGE_REQUIRE makes this a failure*"])


def test_unknown_engine_is_a_usage_error(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(USER_TEST)
    result = run(pytester, "--udlbridge-backends", "jax")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--udlbridge-backends: unknown backend 'jax'*julia, torch, reference*"])
    monkeypatch.setenv("UDLBRIDGE_REQUIRE", "Julia")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*UDLBRIDGE_REQUIRE: unknown backend 'Julia'*julia, torch, reference*"])


def test_the_setting_selects_engines_and_the_option_goes_before_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        USER_TEST
        + """
    import pytest

    @pytest.mark.julia
    def test_mine_with_julia():
        raise AssertionError
    """
    )
    pytester.makeini("[pytest]\nudlbridge_backends = torch, reference")
    run(pytester).assert_outcomes(passed=2, deselected=2)
    run(pytester, "--udlbridge-backends=reference").assert_outcomes(passed=1, deselected=3)
    pytester.makeini("[pytest]\nudlbridge_backends = jax")
    run(pytester).stderr.fnmatch_lines(["*the setting udlbridge_backends: unknown backend 'jax'*"])


def test_who_does_not_ask_for_the_plugin_gets_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USER_TEST)
    result = run(pytester, conftest="")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'backend' not found*"])
    assert "udlbridge" not in run(pytester, "--help", conftest="").stdout.str()
