"""What a model repository may look like: one version serves, the one a person reads off the folders, or none with the reason."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer import Event, Model, ModelError, Topology
from tests.kit.inside import InsideTest
from tests.kit.models import write_model


class Number(Event, topic="numbers"):
    """One number."""

    a: float


def served(models: Path, model: Model) -> tuple[int, str]:
    """Version and folder."""
    topology = (
        Topology("numbers")
        .source(Number, dead_letters="dead")
        .features(lambda w: {"a": w.event("a")})
        .infer(model)
        .publish(predictions="predictions")
    )
    with InsideTest(topology, models=models) as test:
        plan = test.worker.plan
        file = plan.model.file  # type: ignore[union-attr]
        return file.version, file.path.parent.name


Tree = Callable[[Path], object]


def versions(*names: str) -> Tree:
    """Folders of these names, a model in each."""

    def make(models: Path) -> None:
        path = write_model(models, inputs={"x": ("rows", 1)}, version=9999)
        for name in names:
            shutil.copytree(path.parent, models / "m" / name)
        shutil.rmtree(path.parent)

    return make


def aliases(text: str | bytes, *names: str) -> Tree:
    """The same with this file of aliases."""

    def make(models: Path) -> None:
        versions(*(names or ("1", "2")))(models)
        (models / "m" / "aliases.json").write_bytes(text.encode() if isinstance(text, str) else text)

    return make


def and_then(tree: Tree, change: Callable[[Path], object]) -> Tree:
    """A tree, changed: `change` gets the folder of the model."""

    def make(models: Path) -> None:
        tree(models)
        change(models / "m")

    return make


def moved_out(folder: Path) -> None:
    """A version that is a link out of the repository, as with a cache of large files."""
    shutil.move(folder / "1", folder.parents[1] / "elsewhere")
    (folder / "1").symlink_to(folder.parents[1] / "elsewhere")


def linked_to_nothing(folder: Path) -> None:
    """A cache that was cleaned."""
    (folder / "1" / "model.onnx").unlink()
    (folder / "1" / "model.onnx").symlink_to("gone")


def emptied(folder: Path) -> None:
    """A copy that did not begin."""
    (folder / "1" / "model.onnx").write_bytes(b"")


def a_file(models: Path) -> None:
    """A file where the folder of the model should be."""
    models.mkdir()
    (models / "m").touch()


SERVES: dict[str, tuple[Tree, Model, tuple[int, str]]] = {
    "the highest, as a number": (versions("2", "10"), Model("m"), (10, "10")),
    "leading zeros": (versions("2", "003"), Model("m"), (3, "003")),
    "a fixed one with zeros": (versions("2", "003"), Model("m", version=3), (3, "003")),
    "an aliased one with zeros": (aliases('{"best": 2}', "002", "3"), Model("m", alias="best"), (2, "002")),
    "version 0": (versions("0"), Model("m", version=0), (0, "0")),
    "other folders and files": (
        and_then(versions("1", "v2", "1.5", "-3", "٣", "old"), lambda m: (m / "4").touch()), Model("m"), (1, "1"),
    ),
    "a fixed one beside one twice": (versions("1", "2", "02"), Model("m", version=1), (1, "1")),
    "a fixed one beside half a one": (and_then(versions("1"), lambda m: (m / "2").mkdir()), Model("m", version=1), (1, "1")),
    "a link out of the repository": (and_then(versions("1"), moved_out), Model("m"), (1, "1")),
}  # fmt: skip

REFUSED: dict[str, tuple[Tree, Model, str]] = {
    "one version twice": (versions("2", "3", "003"), Model("m"), "has version 3 twice, 003 and 3; remove one"),
    "the highest without a model": (
        and_then(versions("1"), lambda m: (m / "2").mkdir()),
        Model("m"), r"2/model\.onnx is missing: .* choose another version \(1\)",
    ),
    "nothing but a folder": (
        lambda models: (models / "m" / "1").mkdir(parents=True), Model("m"), r"model\.onnx is missing: copy the model there$",
    ),
    "an empty file": (and_then(versions("1"), emptied), Model("m"), "is empty: copy the model again"),
    "half a file": (
        and_then(versions("1"), lambda m: os.truncate(m / "1" / "model.onnx", 40)), Model("m"), r"model\.onnx cannot be loaded",
    ),
    "a folder for a file": (
        and_then(versions("1"), lambda m: (m / "2" / "model.onnx").mkdir(parents=True)), Model("m"), r"model\.onnx is no file",
    ),
    "a link to nothing": (
        and_then(versions("1"), lambda m: (m / "2").symlink_to(m / "gone")), Model("m"), r"2/model\.onnx is a link to nothing",
    ),
    "a file that is a link to nothing": (
        and_then(versions("1"), linked_to_nothing), Model("m"), r"1/model\.onnx is a link to nothing",
    ),
    "a path for a name": (versions("1"), Model("../models/m"), "is no name of a model"),
    "one level up": (versions("1"), Model(".."), "is no name of a model"),
    "a folder in a folder": (versions("1"), Model("m/1"), "is no name of a model"),
    "an absolute path": (versions("1"), Model("/m"), "is no name of a model"),
    "no name": (versions("1"), Model(""), "is no name of a model"),
    "a version that is text": (versions("1"), Model("m", version="1"), "version='1' of model 'm' is no version"),  # type: ignore[arg-type]
    "a version that is true": (versions("1"), Model("m", version=True), "version=True of model 'm' is no version"),
    "version and alias": (aliases('{"best": 1}'), Model("m", "best", 2), "version=2 and alias='best'; give one of them"),
    "a fraction": (aliases('{"best": 1.9}'), Model("m", alias="best"), "does not map 'best' to a version number; it says 1.9"),
    "a truth": (aliases('{"best": true}'), Model("m", alias="best"), "does not map 'best' to a version number; it says true"),
    "a text": (aliases('{"best": "2"}'), Model("m", alias="best"), "does not map 'best' to a version number; it says \"2\""),
    "a version that is not there": (aliases('{"best": 3}'), Model("m", alias="best"), "has no version 3; there are 1, 2"),
    "an alias twice": (aliases('{"best": 1, "best": 2}'), Model("m", alias="best"), "'best' stands there twice"),
    "aliases that are no text": (aliases(b"\xff\xfe"), Model("m", alias="best"), "does not map 'best' to a version number"),
    "aliases without end": (aliases("[" * 100_000), Model("m", alias="best"), "does not map 'best' to a version number"),
    "aliases in a folder": (
        and_then(versions("1"), lambda m: (m / "aliases.json").mkdir()), Model("m", alias="best"), "cannot be read",
    ),
    "a file for the model": (a_file, Model("m"), "no model 'm' in"),
    "a file for the repository": (lambda models: models.touch(), Model("m"), "no model 'm' in"),
    "no repository": (lambda _: None, Model("m"), r"no model 'm' in .* \(there is: nothing\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", SERVES)
def test_the_version_that_serves(name: str, tmp_path: Path) -> None:
    tree, model, expected = SERVES[name]
    tree(tmp_path / "models")
    assert served(tmp_path / "models", model) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    tree, model, says = REFUSED[name]
    tree(tmp_path / "models")
    with pytest.raises(ModelError, match=says) as refusal:
        served(tmp_path / "models", model)
    assert "test_repository.py:" in str(refusal.value)
