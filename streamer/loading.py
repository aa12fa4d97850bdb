"""Finding a topology by the name a person types: `path/to/file.py:object` or `package.module:object`."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from streamer.errors import TopologyError
from streamer.topology import Topology


def load_topology(name: str) -> tuple[Topology, Path]:
    """The topology and the folder of its file (where `models/` is looked for).

    Raises:
        TopologyError: there is no such file, it fails to import, or it holds no such topology.
    """
    place, _, wanted = name.partition(":")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Topology)}
    folder = Path(module.__file__ or ".").resolve().parent
    if not wanted and len(found) == 1:
        return next(iter(found.values())), folder
    if wanted in found:
        return found[wanted], folder
    names = ", ".join(f"{place}:{key}" for key in found) or "none"
    raise TopologyError(f"{name!r} is not a topology; in {place} there are: {names}")


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TopologyError(f"there is no file {path} (looked in {Path.cwd()})")
    module_name = f"streamer_topology_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise TopologyError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except TopologyError:
        raise
    except Exception as error:
        raise TopologyError(f"{_line(error, path)} failed to import: {type(error).__name__}: {error}") from error
    return module


def _line(error: Exception, path: Path) -> str:
    """File and line of the topology at which importing it failed."""
    place = str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == place:
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TopologyError(f"{name} cannot be imported: {error}; a file is given as path/to/file.py:object") from error
