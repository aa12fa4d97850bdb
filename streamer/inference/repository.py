"""Where models lie: a Triton-style tree, `<root>/<name>/<version>/model.onnx`, and `aliases.json` beside the versions."""

import json
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import ModelError
from streamer.topology import Model


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One version of a model on disk."""

    name: str
    version: int
    path: Path


def find(root: Path, model: Model) -> ModelFile:
    """The version of `model` that serves: the fixed one, the aliased one, or the highest.

    Raises:
        ModelError: no such model, version or alias; the message lists what there is.
    """
    folder = root / model.name
    versions = sorted(int(p.parent.name) for p in folder.glob("*/model.onnx") if p.parent.name.isdecimal())
    if not versions:
        known = ", ".join(sorted(p.name for p in root.glob("*") if p.is_dir())) or "nothing"
        raise ModelError(
            f"no model {model.name!r} in {root} (there is: {known}); expected {folder}/1/model.onnx. "
            "The repository is set with --models or STREAMER_MODELS"
        )
    version = _chosen(folder, model, versions)
    if version not in versions:
        raise ModelError(f"{folder} has no version {version}; there are {', '.join(map(str, versions))}")
    return ModelFile(model.name, version, folder / str(version) / "model.onnx")


def _chosen(folder: Path, model: Model, versions: list[int]) -> int:
    if model.version is not None:
        return model.version
    if model.alias is None:
        return versions[-1]
    path = folder / "aliases.json"
    try:
        aliases = json.loads(path.read_text())
        return int(aliases[model.alias])
    except FileNotFoundError:
        raise ModelError(f'alias {model.alias!r} needs {path}, such as {{"{model.alias}": {versions[-1]}}}') from None
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path} does not map {model.alias!r} to a version number; there are {versions}") from None
