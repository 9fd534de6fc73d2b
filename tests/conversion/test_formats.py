"""Model files: formats, the command `convert`, files that Julia writes and reads, and `check` on files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, shaken
from faults.readers import GRAPH
from helpers import assert_within_budget, udlbridge
from udlbridge import backends, errors
from udlbridge.analysis.first_differences import first_difference
from udlbridge.backends.reference.engine import ReferenceBackend
from udlbridge.conversion.formats import read_network, write_network
from udlbridge.networks.inputs import plausible_shape
from udlbridge.networks.layers import Layer

RESIDUAL = shaken(EVERY_LAYER["residual with shortcut"][0], dtype="float32")


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt"])
def test_formats_carry_the_same_network(ending: str, tmp_path: Path) -> None:
    path, spec = tmp_path / f"model{ending}", tmp_path / "model.json"
    write_network(RESIDUAL, path)
    write_network(RESIDUAL, spec)
    assert read_network(path, spec if ending == ".pt" else None) == RESIDUAL
    assert read_network(path, spec) == RESIDUAL


def test_a_state_dict_of_torch_is_read(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.BatchNorm1d(3), torch.nn.Flatten()).eval()
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    model = ub.from_torch(module)
    write_network(model, tmp_path / "model.json")
    assert read_network(tmp_path / "weights.pt", tmp_path / "model.json") == model


def weights() -> tuple[ub.Model, dict[str, torch.Tensor]]:
    model = ub.from_torch(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).eval())
    return model, {name: torch.tensor(value) for name, value in model.arrays.items()}


@pytest.mark.parametrize(
    ("prefix", "outside", "by"),
    [
        ("module.", {}, "DataParallel"),
        ("_orig_mod.", {}, "torch.compile"),
        ("module._orig_mod.", {}, "DataParallel and torch.compile"),
        ("net.", {"pytorch-lightning_version": "2.4.0", "epoch": 3}, "Lightning"),
        ("net._orig_mod.", {"pytorch-lightning_version": "2.4.0"}, "torch.compile"),
    ],
)
def test_prefixes_of_wrappers_are_named_and_stripped(
    prefix: str, outside: dict[str, object], by: str, tmp_path: Path
) -> None:
    model, arrays = weights()
    path, spec = tmp_path / "net.ckpt.pt", tmp_path / "net.json"
    named = {prefix + name: value for name, value in arrays.items()}
    torch.save({**outside, "state_dict": named} if outside else named, path)
    write_network(model, spec)
    assert ub.Model.load(path, spec=spec, strip="auto") == model
    assert ub.Model.load(path, spec=spec, strip=prefix) == model
    with pytest.raises(errors.ModelFileError, match=f"all names begin with '{prefix}', as {by} writes.*strip='auto'"):
        ub.Model.load(path, spec=spec)
    with pytest.raises(errors.OptionError, match=f"strip='model.', and .* has {prefix}0.weight"):
        ub.Model.load(path, spec=spec, strip="model.")
    with pytest.raises(errors.OptionError, match="strip=3"):
        ub.Model.load(path, spec=spec, strip=3)  # type: ignore[arg-type]
    done = udlbridge("convert", path, tmp_path / "net.safetensors", "--spec", spec, "--strip", "auto")
    assert done.returncode == 0, done.stderr
    assert ub.Model.load(tmp_path / "net.safetensors") == model


def test_a_part_that_was_compiled_keeps_its_own_name(tmp_path: Path) -> None:
    model, arrays = weights()
    path, spec = tmp_path / "net.pt", tmp_path / "net.json"
    torch.save({name.replace("0.", "0._orig_mod."): value for name, value in arrays.items()}, path)
    write_network(model, spec)
    assert ub.Model.load(path, spec=spec, strip="auto") == model


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_a_state_dict_in_a_checkpoint_is_found(key: str, tmp_path: Path) -> None:
    model, arrays = weights()
    write_network(model, tmp_path / "net.json")
    torch.save({key: arrays, "optimizer": {"lr": 0.1}, "epoch": 3}, tmp_path / "net.pt")
    assert ub.Model.load(tmp_path / "net.pt", spec=tmp_path / "net.json") == model
    found = ub.read_weights(tmp_path / "net.pt")
    assert list(found) == list(arrays)
    torch.save({"weights": arrays, "epoch": 3}, tmp_path / "net.pt")
    with pytest.raises(errors.ModelFileError, match="not a state dict"):
        ub.Model.load(tmp_path / "net.pt", spec=tmp_path / "net.json")


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_half_precision_is_read_in_a_dtype_that_is_said(half: torch.dtype, ending: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, arrays = weights()
    path, spec = tmp_path / f"net{ending}", tmp_path / "net.json"
    write_network(model, spec)
    rounded = {name: value.to(half) for name, value in arrays.items()}
    (save_file if ending == ".safetensors" else torch.save)(rounded, path)
    for dtype in ("float32", "float64"):
        found = ub.Model.load(path, spec=spec, dtype=dtype)
        assert found.dtype == np.dtype(dtype)
        for name, value in rounded.items():
            np.testing.assert_array_equal(found.arrays[name], value.double().numpy().astype(dtype))
            np.testing.assert_array_equal(ub.read_weights(path, dtype=dtype)[name], found.arrays[name])
    with pytest.raises(errors.UDLBridgeError, match=r"float16"):
        ub.Model.load(path, spec=spec)
    with pytest.raises(errors.DTypeError, match="float16"):
        ub.Model.load(path, spec=spec, dtype="float16")


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt"])
def test_statistics_have_to_be_in_a_file(ending: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    model = ub.Model([ub.Dense(2, 3), ub.BatchNorm(3)])
    arrays = {name: value for name, value in model.arrays.items() if name != "1.running_var"}
    path, spec = tmp_path / f"model{ending}", tmp_path / "model.json"
    write_network(model, spec)
    if ending == ".safetensors":
        save_file(arrays, path, metadata={"udlbridge": spec.read_text()})
    elif ending == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({name: torch.tensor(value) for name, value in arrays.items()}, path)
    with pytest.raises(errors.ParameterError, match=r"model\.\w+ lacks 1\.running_var.*save"):
        read_network(path, spec)
    if ending == ".safetensors":
        with pytest.raises(errors.ParameterError, match=r"model\.safetensors lacks 1\.running_var"):
            ub.Model.load(path)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt", ".json"])
def test_files_that_cannot_be_written(ending: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.ModelFileError, match=r"file is not a folder"):
        write_network(RESIDUAL, tmp_path / "file" / f"model{ending}")
    (tmp_path / "file").unlink()
    taken = tmp_path / f"folder{ending}"
    taken.mkdir()
    with pytest.raises(errors.ModelFileError, match=rf"folder\{ending} cannot be written"):
        write_network(RESIDUAL, taken)
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt"])
def test_model_save_makes_the_folder_and_knows_the_format(ending: str, tmp_path: Path) -> None:
    path, spec = tmp_path / "new" / f"model{ending}", tmp_path / "layers.json"
    RESIDUAL.save(path)
    RESIDUAL.save(spec)
    assert ub.Model.load(path, spec=spec if ending == ".pt" else None) == RESIDUAL
    if ending == ".pt":
        assert set(torch.load(path)) == set(ub.to_torch(RESIDUAL).state_dict())
        with pytest.raises(errors.ModelFileError, match=r"arrays and no layers.*spec=FILE"):
            ub.Model.load(path)


def test_an_npz_holds_the_arrays_and_the_spec_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    savez = np.savez
    monkeypatch.setattr(np, "savez", lambda file, **arrays: (given.extend(arrays), savez(file, **arrays)))
    write_network(RESIDUAL, tmp_path / "model.npz")
    assert given == ["spec", *RESIDUAL.arrays]  # NumPy 1.26 would store allow_pickle=False as one more array


def test_convert_of_an_empty_file_is_no_interruption(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"")
    done = udlbridge("convert", tmp_path / "a.npz", tmp_path / "b.npz")
    assert done.returncode == 2
    assert "a.npz cannot be read" in done.stderr


@pytest.mark.parametrize("name", EVERY_LAYER | TOKENS)
def test_a_pt_is_the_state_dict_of_the_module(name: str, tmp_path: Path) -> None:
    model = shaken((EVERY_LAYER | TOKENS)[name][0])
    spec = tmp_path / "model.json"
    write_network(model, spec)
    write_network(model, tmp_path / "ours.pt")
    module = ub.to_torch(model.astype("float64"))
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    module.load_state_dict(torch.load(tmp_path / "ours.pt", weights_only=True))
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in ub.to_torch(model).state_dict().items())
    torch.save(ub.to_torch(model).state_dict(), tmp_path / "theirs.pth")
    assert read_network(tmp_path / "theirs.pth", spec) == model
    assert read_network(tmp_path / "ours.pt", spec) == model
    # As versions before wrote it: by the model's own names.
    torch.save({key: torch.tensor(value) for key, value in model.arrays.items()}, tmp_path / "before.pt")
    assert read_network(tmp_path / "before.pt", spec) == model


def test_convert(tmp_path: Path) -> None:
    RESIDUAL.save(tmp_path / "a.safetensors")
    done = udlbridge("convert", tmp_path / "a.safetensors", tmp_path / "b.npz", "--dtype", "float64")
    assert done.returncode == 0, done.stderr
    assert "3 layers, 38 parameters, float64" in done.stdout
    assert read_network(tmp_path / "b.npz") == RESIDUAL.astype("float64")
    again = udlbridge("convert", tmp_path / "a.safetensors", tmp_path / "b.npz")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert "Traceback" not in again.stderr


def test_what_is_no_network_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    def bad(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    half = torch.nn.Linear(2, 2).bfloat16().state_dict()
    torch.save({"layers": [1, 2]}, tmp_path / "no_state.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickled.pt")
    torch.save(half, tmp_path / "half.pt")
    save_file({"weight": torch.zeros(2).to(torch.float8_e5m2)}, tmp_path / "quarter.safetensors")
    save_file(half, tmp_path / "half.safetensors")
    np.savez(tmp_path / "alone.npz", **{"0.weight": np.ones((2, 2))})
    np.savez(tmp_path / "objects.npz", spec=np.array([{}], dtype=object))
    np.save(tmp_path / "renamed.npy", np.ones((2, 2)))
    (tmp_path / "renamed.npy").rename(tmp_path / "renamed.npz")
    cases = {
        tmp_path / "model.onnx": r"'\.onnx'.*\.safetensors, \.npz, \.pt",
        tmp_path / "missing.npz": r"no file .*missing\.npz",
        bad("cut.npz", b"PK\x03\x04"): r"cannot be read",
        bad("cut.pt", b"nothing"): r"cannot be read",
        bad("empty.npz", b""): r"empty\.npz cannot be read",
        bad("empty.pt", b""): r"empty\.pt cannot be read",
        bad("empty.safetensors", b""): r"empty\.safetensors is not a readable safetensors file",
        bad("garbage.safetensors", b"garbage" * 9): r"garbage\.safetensors is not a readable safetensors file",
        tmp_path / "no_state.pt": r"not a state dict.*state_dict\(\)",
        tmp_path / "pickled.pt": r"holds a torch\.nn\.modules\.linear\.Linear.*torch\.save\(module\.state_dict\(\)",
        tmp_path / "half.pt": r"weight has dtype bfloat16.*float32, float64.*module\.float\(\)",
        tmp_path / "half.safetensors": r"(bias|weight) has dtype BF16.*float\(\)",
        tmp_path / "quarter.safetensors": r"weight has dtype F8_E5M2",
        tmp_path / "alone.npz": r"arrays and no layers.*--spec",
        tmp_path / "objects.npz": r"cannot be read",
        tmp_path / "renamed.npz": r"renamed\.npz cannot be read.*a single array",
        tmp_path: r"ends in nothing",
    }
    for spec in (None, bad("model.json", json.dumps(RESIDUAL.spec()).encode())):
        for path, words in cases.items():
            if spec is None or path.stem not in ("alone", "tmp"):
                with pytest.raises(errors.ModelFileError, match=words):
                    read_network(path, spec)
    RESIDUAL.save(tmp_path / "good.safetensors")
    for spec, words in {
        tmp_path / "missing.json": r"no file .*missing\.json",
        bad("binary.json", b"\xff\xfe\x00"): r"binary\.json cannot be read",
        bad("other.json", b"[1, 2]"): r"other\.json has no udlbridge spec",
        tmp_path: r"cannot be read",
    }.items():
        with pytest.raises(errors.ModelFileError, match=words):
            read_network(tmp_path / "good.safetensors", spec)
    for path, words in {tmp_path / "half.safetensors": "BF16", tmp_path: "ends in nothing"}.items():
        with pytest.raises(errors.ModelFileError, match=words):
            ub.Model.load(path)
    newer = {**RESIDUAL.spec(), "format": 4}
    with pytest.raises(errors.ModelFileError, match=r"format version 4.*version 1.*update udlbridge"):
        ub.Model.from_spec(json.dumps(newer), RESIDUAL.arrays)
    unknown = {**RESIDUAL.spec(), "layers": [{"kind": "residual", "layers": [{"kind": "conv9d"}], "shortcut": []}]}
    with pytest.raises(errors.ModelFileError, match=r"'conv9d'.*conv2d"):
        ub.Model.from_spec(json.dumps(unknown), RESIDUAL.arrays)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ub.models.lenet5(), (1, 28, 28)),
        (ub.models.small_resnet(), (3, 32, 32)),
        (ub.models.small_resnet("batch", blocks=2), (3, 32, 32)),
        (ub.models.small_transformer(), (16,)),
        (ub.models.three_layer_sigmoid(), (784,)),
        (ub.Model([ub.Flatten()]), None),
        (ub.Model([ub.Flatten(), ub.Dense(784, 10)]), (784,)),
        (ub.Model([ub.BatchNorm(3), ub.Dense(3, 2)]), (3,)),
        (ub.Model([ub.Dropout(0.1), ub.Dense(5, 2)]), (5,)),
        (ub.Model([ub.Residual([ub.Dense(4, 4, "tanh")]), ub.Dense(4, 2)]), (4,)),
        (
            ub.Model([ub.Residual([ub.Activation("relu"), ub.Conv2d(2, 2, 1)]), ub.Flatten(), ub.Dense(18, 1)]),
            (2, 3, 3),
        ),
        (ub.Model([ub.MaxPool(2), ub.Conv2d(1, 2, 3), ub.Flatten(), ub.Dense(50, 1)]), (1, 14, 14)),
        (ub.Model([ub.MeanPool(4), ub.Flatten(), ub.Dense(49, 1)]), (1, 28, 28)),
        (ub.Model([ub.LayerNorm((2, 3)), ub.Flatten(), ub.Dense(6, 1)]), (2, 3)),
        (ub.Model([ub.SinusoidalPositions(), ub.Dense(4, 2), ub.Take(-1)]), (16, 4)),
        (ub.Model([ub.Activation("relu"), ub.Softmax()]), None),
        (ub.Model([ub.Conv1d(2, 3, 3), ub.Flatten(), ub.Dense(12, 1)]), (2, 6)),
    ],
)
def test_shapes_that_layers_say(model: ub.Model, shape: tuple[int, ...] | None) -> None:
    assert plausible_shape(model) == shape


@pytest.mark.parametrize(("name", "parameters"), [("lenet5", 61_706), ("small_resnet", 78_042)])
def test_sizes_of_the_named_networks(name: str, parameters: int) -> None:
    assert getattr(ub.models, name)().n_params == parameters


SAMPLES = {"lenet5": (), "small_resnet": ("--samples", "random"), "small_transformer": ("--samples", "random")}


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["lenet5", "small_resnet", "small_transformer"])
def test_check_of_practical_networks(name: str) -> None:
    done = udlbridge(
        "check", "--model", name, "--n", "2", *SAMPLES[name], "--backend", "torch,reference", "--dtype", "float64"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch, reference: agree" in done.stdout


@pytest.mark.julia
@pytest.mark.parametrize("name", ["lenet5", "small_resnet", "small_transformer"])
def test_check_of_practical_networks_in_all_engines(name: str) -> None:
    done = udlbridge("check", "--model", name, "--n", "2", *SAMPLES[name], "--dtype", "float64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "julia, torch, reference: agree" in done.stdout


def test_check_of_a_file(tmp_path: Path) -> None:
    RESIDUAL.save(tmp_path / "model.safetensors")
    args = ["check", "--model", tmp_path / "model.safetensors", "--n", 3, "--backend", "torch,reference"]
    done = udlbridge(*args, "--shape", "1,4,3")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = udlbridge(*args, "--shape", "2,4,3")
    assert wrong.returncode == 2
    assert "layer 0 does not fit" in wrong.stderr


class WrongNorm(ReferenceBackend):
    """An engine that forgets the epsilon's size in one layer: outputs part there."""

    def outputs(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return super().outputs(ub.Model([self.changed(layer) for layer in model.layers], model.arrays), x)

    def changed(self, layer: Layer) -> Layer:
        if isinstance(layer, ub.Residual):
            return ub.Residual(
                [self.changed(one) for one in layer.layers], [self.changed(one) for one in layer.shortcut]
            )
        return ub.LayerNorm(4, eps=1e-3) if isinstance(layer, ub.LayerNorm) else layer


def test_the_first_layer_where_engines_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, real = WrongNorm(), backends.get
    monkeypatch.setattr(backends, "get", lambda name=None, **_: wrong if name == "torch" else real(name))
    model = shaken([ub.Dense(3, 4, "tanh"), ub.Activation("relu"), ub.LayerNorm(4), ub.Dense(4, 2)])
    x = batch(model, (3,), 4)
    assert first_difference(model, x, "reference", "torch").startswith("layer 2 (layernorm), by ")
    report = ub.check(model, x, backends=["reference", "torch"])
    assert not report.ok
    assert "torch and reference first differ after layer 2 (layernorm)" in str(report)
    assert report.to_dict()["parted"]


@pytest.mark.parametrize(
    ("block", "where"),
    [
        (ub.Residual([ub.Dense(4, 4), ub.LayerNorm(4)]), "layer 1 (layernorm)"),
        (ub.Residual([ub.Dense(4, 4)], [ub.Dense(4, 4), ub.LayerNorm(4)]), "shortcut layer 1 (layernorm)"),
        (ub.Residual([ub.Residual([ub.LayerNorm(4)])]), "layer 0 (residual) > layer 0 (layernorm)"),
    ],
)
def test_the_first_layer_inside_a_block_is_named(
    block: ub.Residual, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, real = WrongNorm(), backends.get
    monkeypatch.setattr(backends, "get", lambda name=None, **_: wrong if name == "torch" else real(name))
    model = shaken([ub.Dense(3, 4), block, ub.Dense(4, 2)])
    found = first_difference(model, batch(model, (3,), 4), "reference", "torch")
    assert found.startswith(f"layer 1 (residual) > {where}, by ")


@pytest.mark.julia
@pytest.mark.parametrize("name", ["conv2d depthwise", "residual with shortcut", "maxpool2d", "transformer"])
def test_files_go_to_julia_and_back(name: str, tmp_path: Path) -> None:
    from udlbridge.backends.julia import owner, runtime

    layers, shape = (EVERY_LAYER | TOKENS)[name]
    model = shaken(layers)
    model.save(tmp_path / "python.safetensors")
    module = owner.run(runtime.start)
    chain = module.load(str(tmp_path / "python.safetensors"))
    module.save(chain, str(tmp_path / "julia.safetensors"))
    again = ub.from_flux(tmp_path / "julia.safetensors")
    assert again == model
    x = batch(model, shape, 2)
    assert_within_budget(ub.outputs(again, x, backend="julia"), ub.outputs(model, x, backend="reference"))


@pytest.mark.parametrize("name", ["m.foo", "m", "m.safetensor", "m.py"])
def test_endings_that_no_format_has(tmp_path: Path, name: str) -> None:
    for network, kind in ((RESIDUAL, ub.Model), (GRAPH, ub.Graph)):
        with pytest.raises(errors.ModelFileError, match=r"Allowed: .*\.safetensors"):
            network.save(tmp_path / name)
        network.save(tmp_path / "m.safetensors")
        (tmp_path / "m.safetensors").rename(tmp_path / name)
        with pytest.raises(errors.ModelFileError, match=r"Allowed: .*\.safetensors"):
            kind.load(tmp_path / name)
        (tmp_path / name).unlink()
