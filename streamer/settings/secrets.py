"""The secrets that this process was given, cut out of any text, in whatever form they got into it."""

import base64
import re
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "***"

# Not shorter: cutting "a" out of every line would hide the log, not the secret.
_CHARS_MIN: Final = 4
# A line of a key in PEM form that is no secret by itself, or too short to be told from other text.
_LINE_CHARS_MIN: Final = 16

# In quotes, in quotes that were escaped once, or up to what ends a word.
_VALUE: Final = r"""(?!\*\*\*)(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\\"(?:(?!\\").)*\\"|[^\s"',;}]+)"""
# Where only the text tells that a secret follows: `password=...`, the user of a URL, a header of HTTP.
_TELLING: Final = re.compile(
    rf"(?i)((?:pass(?:word|phrase|wd)|secret|token|api.?key)\\*[\"']?\s*[=:]\s*){_VALUE}"
    r"|(://[^/\s:@]{1,256}:)(?!\*\*\*@)[^@\s/]{1,1024}(?=@)"
    r"|(\bauthorization[\"']?\s*[=:]\s*[\"']?(?:basic|bearer)\s+|\bbearer\s+(?=[^\s]{16}))[A-Za-z0-9+/=._~-]+"
)

# What stands before a character that was escaped; once more escaped, there are more of them.
_ESCAPES: Final = r"\\{0,16}"
_SHORT: Final = {"\n": ["n"], "\r": ["r"], "\t": ["t"], " ": [r"\+"]}

_known: re.Pattern[str] | None = None


def know(secrets: Iterable[str]) -> None:
    """From now on these values are cut out, in place of those known before."""
    global _known  # noqa: PLW0603 - one process has one set of secrets, and any text may carry them
    parts = {part for secret in secrets for part in _parts(secret)}
    _known = re.compile("|".join(map(_written, sorted(parts, key=len, reverse=True)))) if parts else None


def redacted(text: str) -> str:
    """`text` without secrets: those known, and what is named as one."""
    if _known is not None:
        text = _known.sub(REDACTED, text)
    return _TELLING.sub(lambda found: (found[1] or found[2] or found[3]) + REDACTED, text)


def _parts(secret: str) -> set[str]:
    """A secret, and each line of one that has several, such as a key: an error may quote one line."""
    lines = {line.strip() for line in secret.splitlines() if not line.startswith("-----")}
    whole = {secret} if len(secret) >= _CHARS_MIN else set()
    return whole | ({line for line in lines if len(line) >= _LINE_CHARS_MIN} if len(lines) > 1 else set())


def _written(secret: str) -> str:
    """A pattern of all ways to write a value: as it is, escaped however often, in a URL, as base64 or digits."""
    first, *others = map(_char_written, secret)
    data = secret.encode("utf-8", "surrogatepass")
    coded = (base64.b64encode(data), base64.urlsafe_b64encode(data), data.hex().encode())
    # Without the padding, which is missing where something follows.
    return "|".join(
        [first + "".join(_ESCAPES + each for each in others), *(re.escape(each.decode().rstrip("=")) for each in coded)]
    )


def _char_written(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    ways = [r"\\{1,16}" if char == "\\" else re.escape(char)]
    if char in _SHORT:
        ways += _SHORT[char]
    data = char.encode("utf-8", "surrogatepass")
    # Digits of a code may be small or capital letters; before the first of them stands what `_ESCAPES` has taken.
    utf16 = char.encode("utf-16-be", "surrogatepass").hex()
    codes = [f"x{ord(char):02x}"] if ord(char) < 0x100 else [f"u{ord(char):08x}"]
    codes += [_ESCAPES.join(f"x{byte:02x}" for byte in data), "".join(f"%{byte:02x}" for byte in data)]
    codes += [_ESCAPES.join(f"u{utf16[n : n + 4]}" for n in range(0, len(utf16), 4))]
    return f"(?:{'|'.join(ways)}|(?i:{'|'.join(codes)}))"
