"""What is here, what is missing, and the one command that mends each: the report behind `udlbridge doctor`."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import ssl
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from udlbridge import config
from udlbridge.backends.julia import hosts, probe, runtime
from udlbridge.data import sources
from udlbridge.errors import UDLBridgeError


@dataclass(frozen=True)
class Finding:
    """One part: whether it is there, its version or place, and what mends it where it is not."""

    part: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at every part that the bridge uses. Julia is started at most, and ended at once; nothing is downloaded."""
    findings = [
        Finding("Python", True, platform.python_version()),
        _package("udlbridge"),
        _package("numpy"),
        _package("torch"),
        _package("juliacall"),
    ]
    return [*findings, *_julia(), _data()]


def to_dict(findings: list[Finding]) -> dict[str, Any]:
    """The findings as JSON-ready data."""
    return {"ok": all(finding.ok for finding in findings), "parts": [asdict(finding) for finding in findings]}


def _package(name: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(name, False, "not installed", f"pip install {name}")
    return Finding(name, True, metadata.version(name))


def _julia() -> list[Finding]:
    install = "udlbridge julia install"
    try:
        named = runtime.location()
    except UDLBridgeError as error:
        return [Finding("Julia", False, error.given, error.remedy)]
    if named is None:
        state = runtime.availability()
        if not state.ok:
            return [Finding(part, False, "not set up", install) for part in ("Julia", "Flux", "Zygote", "PythonCall")]
        named = runtime.juliapkg_location()
    use = "udlbridge julia use --exe E --project P"
    exe = shutil.which(str(named.exe))
    if exe is None:
        return [Finding("Julia", False, f"no executable at {named.exe} ({named.source})", use)]
    findings = [_julia_starts(exe, named)]
    if findings[0].ok:
        findings.append(openssl(findings[0].found.split()[0]))
    versions = runtime.project_versions(named.project)
    for name in ("Flux", "Zygote", "PythonCall"):
        add = f"{exe} --project={named.project} -e 'using Pkg; Pkg.add(\"{name}\")'"
        if name not in versions:
            findings.append(Finding(name, False, f"not in {named.project}", add))
            continue
        wanted = runtime.juliacall_version()
        if name == "PythonCall" and versions[name] != wanted:
            remedy = f"pip install juliacall=={versions[name]}"
            findings.append(
                Finding(name, False, f"{versions[name]}, but juliacall is {wanted}: they must be equal", remedy)
            )
            continue
        findings.append(Finding(name, True, versions[name]))
    return [*findings, place()]


def place() -> Finding:
    """Where Julia runs."""
    try:
        chosen = config.julia_place() or hosts.DEFAULT_PLACE
        config.julia_linger()
    except UDLBridgeError as error:
        return Finding(config.JULIA_PLACE, False, error.given, error.remedy)
    words = {"process": "Julia has a process of its own", "inprocess": "Julia runs in the process that calls it"}
    return Finding(config.JULIA_PLACE, True, f"{chosen}: {words[chosen]}")


OPENSSL = (3, 5)
"""What Python's OpenSSL has to be for Julia 1.12 and newer in its process: Julia brings that one along."""

CRASHING = ("1.10.1", "1.10.2")
"""Versions of Julia whose published binaries crash in juliacall, over libgomp (PythonCall.jl issue 464)."""


def openssl(julia: str, python: tuple[int, ...] = ssl.OPENSSL_VERSION_INFO) -> Finding:
    """Whether Python's OpenSSL goes together with a version of Julia in one process."""
    found = ".".join(map(str, python[:3]))
    numbers = tuple(int(number) for number in re.findall(r"\d+", julia)[:2])
    if numbers < (1, 12) or python[:2] >= OPENSSL:
        return Finding("OpenSSL", True, f"{found} in Python, which goes together with Julia {julia}")
    remedy = "use Julia 1.10 or 1.11, or a Python with OpenSSL 3.5 or newer"
    return Finding("OpenSSL", False, f"{found} in Python; Julia {julia} needs 3.5 or newer there", remedy)


def _julia_starts(exe: str, named: runtime.Location) -> Finding:
    try:
        version = probe.version_of(exe)
        probe.check_start(exe, named.project)
    except UDLBridgeError as error:
        return Finding("Julia", False, error.given, "udlbridge julia use --exe E --project P")
    found = f"{version} at {exe} ({named.source})"
    crashing = " and ".join(CRASHING)
    note = f"none needed if it was built here: the published binaries of {crashing} crash in juliacall"
    return Finding("Julia", True, found, note if version in CRASHING else "")


def _data() -> Finding:
    folder = sources.named_folder(None)
    if folder:
        try:
            for name in sources.SHA256:
                sources.from_folder(folder, name)
        except UDLBridgeError as error:
            return Finding("MNIST", False, error.given, error.remedy)
        return Finding("MNIST", True, f"all four files in {folder}")
    cache = sources.cache_folder()
    present = [name for name in sources.SHA256 if (cache / name).is_file()]
    if len(present) == len(sources.SHA256):
        return Finding("MNIST", True, f"all four files in {cache}")
    remedy = "none needed: the rest is downloaded at first use, or name a folder in UDLBRIDGE_DATA"
    return Finding("MNIST", True, "the first 1,000 training images, shipped with the package", remedy)


def config_path() -> str:
    """Where the user's configuration is or would be."""
    return str(config.config_file())
