"""A server of Julia's packages here: a registry of stand-ins with the names that juliapkg wants, and nothing in them.

It has what Julia's package manager asks a server for: the hashes of registries, a registry, a package, each a tarball
that is named by the hash of its tree, as git has it. https://github.com/JuliaLang/Pkg.jl/issues/1377 describes it.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

GENERAL = "23338594-aafe-5451-b93e-139f81909106"

Tree = dict[str, "Tree | str"]
"""Folders and texts by name."""


def tree_hash(tree: Tree) -> str:
    """That of git, of a tree of plain files."""
    rows = []
    for name, content in tree.items():
        folder = isinstance(content, dict)
        hashed = tree_hash(content) if isinstance(content, dict) else _hash("blob", content.encode())
        rows.append((name + "/" * folder, f"{40000 if folder else 100644} {name}\0".encode() + bytes.fromhex(hashed)))
    return _hash("tree", b"".join(row for _, row in sorted(rows)))


def _hash(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def packed(tree: Tree) -> bytes:
    """As a .tar.gz file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        _pack(archive, "", tree)
    return file.getvalue()


def _pack(archive: tarfile.TarFile, folder: str, tree: Tree) -> None:
    for name, content in sorted(tree.items()):
        entry = tarfile.TarInfo(folder + name)
        if isinstance(content, dict):
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
            _pack(archive, f"{folder}{name}/", content)
        else:
            entry.size, entry.mode = len(content.encode()), 0o644
            archive.addfile(entry, io.BytesIO(content.encode()))


def package(name: str, uuid: str, version: str) -> Tree:
    """One that does nothing."""
    project = f'name = "{name}"\nuuid = "{uuid}"\nversion = "{version}"\n'
    return {"Project.toml": project, "src": {f"{name}.jl": f"module {name}\nend\n"}}


def registry(versions: Mapping[tuple[str, str], str]) -> Tree:
    """One of such packages, by their names and UUIDs."""
    rows = "".join(f'{uuid} = {{ name = "{name}", path = "{name}" }}\n' for name, uuid in versions)
    tree: Tree = {"Registry.toml": f'name = "General"\nuuid = "{GENERAL}"\n\n[packages]\n{rows}'}
    for (name, uuid), version in versions.items():
        hashed = tree_hash(package(name, uuid, version))
        tree[name] = {
            "Package.toml": f'name = "{name}"\nuuid = "{uuid}"\nrepo = "https://nowhere.invalid/{name}.jl.git"\n',
            "Versions.toml": f'["{version}"]\ngit-tree-sha1 = "{hashed}"\n',
        }
    return tree


def lowest(compat: str | None) -> str:
    """The lowest version that something like "0.10, 1", "=0.9.34" or "3 - 3.5" allows, with three parts."""
    found = re.search(r"\d+(\.\d+)*", compat or "1")
    assert found is not None
    return ".".join([*found[0].split("."), "0", "0"][:3])


@dataclass
class Packages:
    """A server that runs: where, and which registry each of those asked for who asked.

    `preferences`: the registry that was wanted, of all requests for one; "" is the default.
    """

    url: str
    preferences: list[str] = field(default_factory=list)


@contextmanager
def serving(default: Mapping[tuple[str, str], str], eager: Mapping[tuple[str, str], str]) -> Iterator[Packages]:
    """A server with two registries: the one that it gives by default, and the newest."""
    files: dict[str, bytes] = {}
    lists: dict[str, bytes] = {}
    for name, versions in (("", default), ("eager", eager)):
        tree = registry(versions)
        path = f"/registry/{GENERAL}/{tree_hash(tree)}"
        files[path], lists[name] = packed(tree), f"{path}\n".encode()
        for (own, uuid), version in versions.items():
            content = package(own, uuid, version)
            files[f"/package/{uuid}/{tree_hash(content)}"] = packed(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Julia-Registry-Preference", "")
            if self.path.startswith("/registries"):
                served.preferences.append(wanted)
                content: bytes | None = lists[wanted]
            else:
                content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815 - the names are those of http.server

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Packages(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
