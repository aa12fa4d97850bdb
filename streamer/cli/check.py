"""What the doctor finds: one line each."""

from dataclasses import dataclass

TIMEOUT_S = 5.0
"""How long a broker may take for one answer."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what is well, or what is wrong and how to mend it."""

    ok: bool
    what: str
    fix: str = ""
    warning: bool = False

    def __str__(self) -> str:
        word = "warn" if self.warning else "ok  " if self.ok else "FAIL"
        return f"{word} {self.what}" + (f": {self.fix}" if self.fix else "")
