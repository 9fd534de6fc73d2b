"""Files that would unpack to far more than they are: refused before anything is unpacked."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge import errors
from udlbridge.cli.sample_files import Named, read_array
from udlbridge.conversion.formats import read_network, write_network
from udlbridge.networks import archives

MODEL = ub.Model([ub.Dense(4, 3)])

resource = pytest.importorskip("resource", reason="POSIX says how much memory a process took")


def peak() -> int:
    """The largest resident size of this process so far, in bytes on Linux's scale."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_an_npz_file_that_unpacks_to_a_gigabyte(tmp_path: Path) -> None:
    write_network(MODEL, tmp_path / "m.npz")
    header = {"descr": "<f4", "fortran_order": False, "shape": (100_000_000,)}
    with (
        zipfile.ZipFile(tmp_path / "m.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("more.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(100):
            member.write(bytes(4_000_000))
    before = peak()
    with pytest.raises(errors.ModelFileError, match="unpacks from"):
        read_network(tmp_path / "m.npz")
    assert peak() - before < 100_000_000


def test_zeros_are_read_however_small_their_file_is(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", ids=np.zeros((1000, 1000), np.float32))
    assert (tmp_path / "x.npz").stat().st_size * archives.PACKED < 4_000_000
    assert read_array(Named(tmp_path / "x.npz"), several=True)["ids"].shape == (1000, 1000)


def test_samples_have_the_same_bound_as_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.check_archive, "__defaults__", (64, 3_000_000))
    np.savez_compressed(tmp_path / "x.npz", ids=np.zeros((1000, 1000), np.float32))
    with pytest.raises(errors.DataError, match=r"x.npz is packed: it unpacks from.*64 times.*numpy.savez\(") as raised:
        read_array(Named(tmp_path / "x.npz"), several=True)
    assert "not a .npz" not in str(raised.value)
    np.savez(tmp_path / "x.npz", ids=np.zeros((1000, 1000), np.float32))
    assert read_array(Named(tmp_path / "x.npz"), several=True)["ids"].shape == (1000, 1000)


def test_packed_weights_are_read(tmp_path: Path) -> None:
    """Those of a pruned network, packed as np.savez_compressed packs them."""
    weight = np.zeros((300, 40), np.float32)
    weight[::10] = np.random.default_rng(0).standard_normal((30, 40))
    model = ub.Model([ub.Dense(40, 300)], {"0.weight": weight, "0.bias": np.zeros(300, np.float32)})
    np.savez_compressed(tmp_path / "m.npz", spec=np.array(json.dumps(model.spec())), **model.arrays)
    assert read_network(tmp_path / "m.npz") == model


def test_a_pt_file_with_a_view_of_one_number(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_network(MODEL, tmp_path / "layers.json")
    torch.save({"0.weight": torch.zeros(1).expand(30_000, 30_000), "0.bias": torch.zeros(3)}, tmp_path / "m.pt")
    before = peak()
    with pytest.raises(errors.ModelFileError, match=r"would take 3,600,000,012 bytes"):
        read_network(tmp_path / "m.pt", tmp_path / "layers.json")
    assert peak() - before < 100_000_000


def test_a_pt_file_that_is_packed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_network(MODEL, tmp_path / "layers.json")
    torch.save({"0.weight": torch.zeros(1000, 1000), "0.bias": torch.zeros(3)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(errors.ModelFileError, match="unpacks from"):
        read_network(tmp_path / "m.pt", tmp_path / "layers.json")
