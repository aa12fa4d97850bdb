"""Text that comes from elsewhere (records, keys, headers, models, brokers) made safe to show: it cannot steer a terminal.

What is not printed as it stands is shown as its escape: controls (ESC, newline, C1), what reorders text (bidi overrides), what
has no width, and halves of surrogate pairs. So a key cannot forge a line, hide text, or look like another key.
"""

import json
import re
from typing import Final

# Controls of C0 and C1 with DEL, line and paragraph separators, Unicode's Bidi_Control and Default_Ignorable_Code_Point (zero
# width), interlinear annotations, and surrogates, which no encoding can print.
_UNSAFE_CLASS: Final = (
    "\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e"
    "\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ud800-\\udfff"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
)
_UNSAFE: Final = re.compile(f"[{_UNSAFE_CLASS}]")
_UNSAFE_BUT_NEWLINE: Final = re.compile(f"(?!\n)[{_UNSAFE_CLASS}]")
_WHITE: Final = re.compile(r"[\t\n\r]+")


def plain(text: str) -> str:
    """`text` on one line."""
    return _UNSAFE.sub(_escaped, text)


def plain_lines(text: str) -> str:
    """`text` that may have several lines: those behind the first are indented, so none looks like a line of ours."""
    return _UNSAFE_BUT_NEWLINE.sub(_escaped, text).replace("\n", "\n  ")


def plain_json(text: str) -> str:
    """The same JSON value on one line, with escapes of JSON's own; `text` must be JSON.

    Inside of strings JSON has no raw controls, so those are white space between its parts.
    """
    return _UNSAFE.sub(_escaped_in_json, _WHITE.sub(" ", text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped_in_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"
