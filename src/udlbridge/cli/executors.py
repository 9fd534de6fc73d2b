"""--executor and --dask: whose workers compute and read the tiles of a store."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from udlbridge.cli.common import Command


def executor_options(command: Command) -> Command:
    """--executor and --dask, as the arguments `executor_name` and `dask`."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--executor",
            "executor_name",
            metavar="KIND:NUMBER",
            help="Workers for the tiles of a store: processes:4, or threads:4.",
        ),
        click.option(
            "--dask",
            metavar="ADDRESS",
            help="A Dask scheduler with workers for them, as tcp://host:8786; or local:4, so many processes here.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def check_executor(executor_name: str | None, dask: str | None) -> None:
    """Find out before anything is loaded whether the options can be meant.

    Raises:
        UsageError: both are given, or one has a form that it cannot have.
    """
    if executor_name is not None and dask is not None:
        raise click.UsageError("--executor and --dask are two ways: give one")
    if executor_name is not None and not re.fullmatch(r"(processes|threads):[1-9]\d{0,3}", executor_name):
        raise click.UsageError(f"--executor {executor_name}: processes:NUMBER or threads:NUMBER, from 1 to 9999")
    if dask is not None and dask.startswith("local") and not re.fullmatch(r"local:[1-9]\d{0,3}", dask):
        raise click.UsageError(f"--dask {dask}: local:NUMBER, or the address of a scheduler")


def check_executor_of_store(executor_name: str | None, dask: str | None, store: bool, remedy: str) -> None:
    """As `check_executor`, where workers need a store, which may not be there.

    Raises:
        UsageError: one of the options is given without a store.
    """
    check_executor(executor_name, dask)
    if not store and (executor_name or dask):
        raise click.UsageError(f"{'--executor' if executor_name else '--dask'} is for stores: {remedy}")


@contextmanager
def opened(executor_name: str | None, dask: str | None, threads: int | None) -> Iterator[tuple[Any, int | None]]:
    """The executor that the options name, None without any, and the threads that each of its workers takes.

    Workers on this machine share its cores, unless `threads` says how many each has.

    Raises:
        OptionError: Dask is not installed, or no scheduler answers.
    """
    here = executor_name or (dask if dask is not None and dask.startswith("local:") else "")
    kind, _, number = here.partition(":")
    count = int(number or 1)
    own = threads or max(1, (os.cpu_count() or 1) // count)
    if kind == "threads":
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(count) as pool:
            yield pool, own
    elif kind == "processes":
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        # Ctrl-C reaches all processes of a terminal: the coordinator is the one that ends the work.
        with ProcessPoolExecutor(count, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as made:
            yield made, own
    elif dask is not None:
        with _client(dask, count if kind == "local" else None) as client:
            yield client, own if kind == "local" else threads
    else:
        yield None, threads


@contextmanager
def _client(address: str, count: int | None) -> Iterator[Any]:
    """A client of the scheduler there, or of a cluster of `count` processes on this machine."""
    from udlbridge.errors import OptionError

    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise OptionError(
            f"--dask {address}, and Dask is not installed ({error})",
            allowed="an installation with it",
            remedy='pip install "udlbridge[dask]"; --executor processes:4 needs nothing more',
        ) from None
    if count is not None:
        # Whatever dies is started anew. Dask gives a worker up, for good, that is not there 15 seconds after its death:
        # one that starts slowly, or that died again in between.
        with (
            dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
            LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as made,
            Client(made) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise OptionError(
            f"--dask {address}: no scheduler answers ({error})",
            allowed="the address that `dask scheduler` prints, as tcp://host:8786",
            remedy="see whether it runs, and can be reached from here; local:4 starts one",
        ) from None
    with client:
        yield client
