"""Finding a topology by the name a person types: `path/to/file.py:object` or `package.module:object`."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from streamer.errors import TopologyError
from streamer.topology.steps import Declaration

_Loaded = TypeVar("_Loaded")


def load_topology(name: str) -> tuple[Declaration, Path]:
    """The topology and the folder of its file (where `models/` is looked for).

    Raises:
        TopologyError: there is no such file, it fails to import, or it holds no such topology.
    """
    place, _, wanted = name.partition(":")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Declaration)}
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
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[module_name] = module
    _look_in(path.absolute().parent)
    _imported(path, lambda: loader.exec_module(module))
    return module


def _from_package(name: str) -> ModuleType:
    _look_in(Path.cwd())
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise TopologyError(f"{name} cannot be imported: {error}; a file is given as path/to/file.py:object") from error
    if found is None:
        raise TopologyError(f"there is no module {name} (looked in {Path.cwd()} too); a file is given as path/to/file.py:object")
    return _imported(Path(found.origin or name), lambda: importlib.import_module(name))


def _look_in(folder: Path) -> None:
    """Let the topology import what lies there, as `python file.py` and `python -m module` do; later imports too."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(path: Path, load: Callable[[], _Loaded]) -> _Loaded:
    try:
        return load()
    except TopologyError:
        raise
    except SystemExit as error:
        raise TopologyError(f"{path} ends the process ({error.code}) while it is imported; guard that by __name__") from error
    except Exception as error:
        hint = ""
        if isinstance(error, ImportError) and "relative import" in str(error):
            hint = f"; import a neighbour by its name alone (from cards import ...), or run package.{path.stem}:object"
        raise TopologyError(f"{_line(error, path)} failed to import: {type(error).__name__}: {error}{hint}") from error


def _line(error: Exception, path: Path) -> str:
    """File and line of the topology at which importing it failed."""
    place = str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == place:
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    return f"{path}:{lines[-1]}" if lines else str(path)
