"""Where models lie: a Triton-style tree, `<root>/<name>/<version>/model.onnx`, and `aliases.json` beside the versions.

What is ambiguous or half there is refused, never guessed: the version that serves must be the one that a person reads off the
folders. Links are followed, also out of the tree; names lead nowhere but into it.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import ModelError
from streamer.topology.steps import Model

_FILE = "model.onnx"
# More digits are no version, but a date with a time, or a hash.
_VERSION = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One version of a model on disk."""

    name: str
    version: int
    path: Path


def find(root: Path, model: Model) -> ModelFile:
    """The version of `model` that serves: the fixed one, the aliased one, or the highest.

    Raises:
        ModelError: no such model, version or alias, or more than one answer; the message lists what there is.
    """
    _check_name(model, root)
    folder = root / model.name
    try:
        versions = _versions(folder)
        if not versions:
            known = ", ".join(sorted(p.name for p in root.glob("*") if p.is_dir())) or "nothing"
            raise ModelError(
                f"no model {model.name!r} in {root} (there is: {known}); expected {folder}/1/{_FILE}. "
                "The repository is set with --models or STREAMER_MODELS"
            )
        version = _chosen(folder, model, sorted(versions))
        if version not in versions:
            raise ModelError(f"{folder} has no version {version}; there are {_listed(versions)}")
        return ModelFile(model.name, version, _file(folder, version, versions))
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error}") from error


def _check_name(model: Model, root: Path) -> None:
    name = model.name
    if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise ModelError(f"{name!r} is no name of a model: it is that of a folder in {root}, without a path")
    if model.version is not None and (type(model.version) is not int or model.version < 0):
        raise ModelError(f"version={model.version!r} of model {name!r} is no version: it is a whole number, such as 1")
    if model.version is not None and model.alias is not None:
        raise ModelError(f"model {name!r} has version={model.version} and alias={model.alias!r}; give one of them")


def _versions(folder: Path) -> dict[int, list[Path]]:
    """Version -> its folder, or several where one version is spelled in several ways."""
    versions: dict[int, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if _VERSION.fullmatch(path.name) and (path.is_dir() or path.is_symlink()):
                versions.setdefault(int(path.name), []).append(path)
    return versions


def _listed(versions: dict[int, list[Path]]) -> str:
    return ", ".join(map(str, sorted(versions)))


def _chosen(folder: Path, model: Model, versions: list[int]) -> int:
    if model.version is not None:
        return model.version
    if model.alias is None:
        return versions[-1]
    path = folder / "aliases.json"
    try:
        aliases = json.loads(path.read_text("utf-8"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise ModelError(f'alias {model.alias!r} needs {path}, such as {{"{model.alias}": {versions[-1]}}}') from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} does not map {model.alias!r} to a version number: {error}; there are {versions}") from None
    version = aliases.get(model.alias) if isinstance(aliases, dict) else None
    if type(version) is not int:
        said = f"it says {json.dumps(version)}; " if version is not None else ""
        raise ModelError(f"{path} does not map {model.alias!r} to a version number; {said}there are {versions}")
    return version


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return dict(pairs)


def _file(folder: Path, version: int, versions: dict[int, list[Path]]) -> Path:
    """The file of a version, if it is one."""
    places = versions[version]
    if len(places) > 1:
        raise ModelError(f"{folder} has version {version} twice, {' and '.join(p.name for p in places)}; remove one of them")
    path = places[0] / _FILE
    if not path.is_file():
        what = "is a link to nothing" if path.is_symlink() or not places[0].exists() else "is no file" if path.exists() else None
        others = [str(other) for other in sorted(versions) if other != version]
        instead = f"; or choose another version ({', '.join(others)}) with Model(..., version=)" if others else ""
        raise ModelError(f"{path} {what or 'is missing'}: copy the model there{instead}")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty: copy the model again")
    return path
