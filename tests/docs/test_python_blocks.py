"""Every Python block of every page runs, from top to bottom in one namespace a page, and so do the tests in it."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import Block, blocks, name, pages

PAGES = [page for page in pages() if blocks(page, "python")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, without a broker: what needs one stands in a function and is not called here."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(padded(block), space)
    for function in examples_in(space):
        if "broker" not in function:
            space[function]()


def test_examples_against_a_broker_run(kafka: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one that starts its own broker is run where a broker can be had."""
    assert kafka
    monkeypatch.chdir(tmp_path)
    ran = 0
    for page in PAGES:
        for block in blocks(page, "python"):
            if "_real_broker" in block.text:
                space: dict[str, Any] = {"__name__": "page"}
                exec(padded(block), space)
                for function in examples_in(space):
                    space[function]()
                    ran += 1
    assert ran


def padded(block: Block) -> Any:
    """Compiled with the line numbers of the page, so that a traceback points there."""
    return compile("\n" * (block.line - 1) + block.text, name(block.page), "exec")


def examples_in(space: dict[str, Any]) -> list[str]:
    return [key for key, value in space.items() if key.startswith("test_") and callable(value)]
