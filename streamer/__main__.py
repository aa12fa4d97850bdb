"""`python -m streamer`, and the command of that name."""

import sys

from streamer.first_instant import leave_when_told


def main() -> None:
    """Run a command. A worker answers signals before it imports anything that takes time; others end as programs do."""
    if sys.argv[1:2] == ["run"]:
        leave_when_told()
    from streamer.cli import app  # noqa: PLC0415 - see above

    app()


if __name__ == "__main__":
    main()
