"""The pages and what is inside them: fenced blocks, links, headings and tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

_FENCE = re.compile(r"^```(?P<tag>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language and where its first line stands."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{name(self.page)}:{self.line}"


def pages() -> list[Path]:
    """All pages a person reads, README first."""
    return [ROOT / top for top in TOP] + sorted((ROOT / "docs").glob("*.md"))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, all or those of some languages."""
    text = page.read_text("utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start("text")) + 1, match["tag"].strip(), match["text"])
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Names of the headings as GitHub links to them."""
    titles = (re.sub(r"[`*]", "", title) for title in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def rows(page: Path, heading: str) -> list[list[str]]:
    """Cells of the table whose first line begins with `| heading |`, without that line and the rule."""
    lines = page.read_text("utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(f"| {heading} |")]
    assert starts, f"{name(page)} has no table that begins with {heading!r}"
    found = []
    for start in starts:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def commands(block: Block) -> Iterator[str]:
    """The lines somebody types: those after `$ ` in a console, all but comments in a script; continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    for line in lines:
        if block.language == "console" and line.startswith("$ "):
            yield line[2:]
        elif block.language == "bash" and line.strip() and not line.lstrip().startswith("#"):
            yield line
