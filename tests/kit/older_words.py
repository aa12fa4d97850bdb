"""A file with a topology, in the words of an older tree: what was renamed since then has its old name again."""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from streamer import renamed

# What became a topology of its own, and its steps.
LABELS = {"LabelMatch": "Topology", "predictions": "source", "labels": "match"}


@dataclass(frozen=True, slots=True)
class Words:
    """Name of today -> older name.

    Attributes:
        arguments: of a step or a window, by its name.
        functions: public ones.
        steps: classes and methods.
        settings: as they stand in a file.
    """

    arguments: Mapping[str, Mapping[str, str]]
    functions: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    def file(self, source: str) -> str:
        """A Python file as that tree reads it."""
        return ast.unparse(_Reworded(self).visit(ast.parse(source)))

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Settings in the environment."""
        names = {f"STREAMER_{new.upper()}": f"STREAMER_{old.upper()}" for new, old in self.settings.items()}
        return {names.get(name, name): value for name, value in given.items()}


def words_of(tree: Path) -> Words:
    """What to say in this tree: all that this one's table of names has and its own has not."""
    known = _table(tree / "streamer" / "renamed.py")
    arguments: dict[str, dict[str, str]] = {}
    for function, names in renamed.ARGUMENTS.items():
        since = {new: old for old, new in names.items() if old not in known.ARGUMENTS.get(function, {})}
        arguments[function.rpartition(".")[2]] = since
    steps = {} if set(renamed.STEPS) <= set(known.STEPS) else LABELS
    for new, old in steps.items():
        arguments[new] = arguments["join"] if new == "labels" else arguments.get(old, {})
    return Words(arguments, _since(renamed.FUNCTIONS, known.FUNCTIONS), steps, _since(renamed.SETTINGS, known.SETTINGS))


def _since(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in ours.items() if old not in theirs}


def _table(path: Path) -> Any:
    """The table of a tree; an empty one where nothing had been renamed yet."""
    if not path.exists():
        return SimpleNamespace(ARGUMENTS={}, FUNCTIONS={}, STEPS={}, SETTINGS={})
    spec = importlib.util.spec_from_file_location("older_renamed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Reworded(ast.NodeTransformer):
    def __init__(self, words: Words) -> None:
        self._words = words
        self._names = {**words.functions, **{new: old for new, old in words.steps.items() if new[0].isupper()}}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        for alias in node.names:
            alias.name = self._names.get(alias.name, alias.name)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for keyword in node.keywords:
            keyword.arg = self._words.arguments.get(called, {}).get(keyword.arg or "", keyword.arg)
        if isinstance(node.func, ast.Attribute):
            node.func.attr = self._words.steps.get(called, called)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self._names.get(node.id, node.id)
        return node
