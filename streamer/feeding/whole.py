"""Files that are records as they stand, for a source that reads values as they are: each file is one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.feeding.rows import FeedError
from streamer.limits import FEED_LINE_CHARS_MAX


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file as a record; it has no time but that of its sending."""

    key: bytes | None
    value: bytes
    time_us: int = 0

    def moved(self, by_us: int) -> "WholeFile":  # noqa: ARG002 - as a row with a time has it
        """The same: there is nothing to move."""
        return self


@dataclass(frozen=True, slots=True)
class WholeFiles:
    """Files, each a record.

    Attributes:
        paths: in the order in which they go.
        key_from_file: whether the file's name, without folder and suffix, is the record key; else there is none.
    """

    paths: list[Path]
    key_from_file: bool = False

    def rows(self) -> Iterator[WholeFile]:
        """All of them.

        Raises:
            FeedError: one is missing, or larger than any topic takes.
        """
        for path in self.paths:
            try:
                with path.open("rb") as file:
                    value = file.read(FEED_LINE_CHARS_MAX + 1)
            except OSError as error:
                raise FeedError(f"cannot read {path}: {error.strerror} (looked in {Path.cwd()})") from error
            if len(value) > FEED_LINE_CHARS_MAX:
                raise FeedError(f"{path}: more than {FEED_LINE_CHARS_MAX:,} bytes; each file is fed as one record")
            yield WholeFile(path.stem.encode("utf-8", "surrogateescape") if self.key_from_file else None, value)

    def times_us(self) -> Iterator[int]:
        """Event times: there are none."""
        return iter(())

    def total(self) -> int | None:
        """How many there are."""
        return len(self.paths)
