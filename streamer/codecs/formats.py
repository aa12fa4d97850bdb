"""The formats by name: which class can be read from which, and the codec that does."""

from streamer.codecs.codec import Codec
from streamer.codecs.json import JsonCodec
from streamer.codecs.raw import RawCodec
from streamer.topology.event import Event, Format

CODECS: dict[Format, type[JsonCodec | RawCodec]] = {"json": JsonCodec, "raw": RawCodec}


def codec_of(event: type[Event], format: Format, record_bytes_max: int) -> Codec:  # noqa: A002 - the word of `.source`
    """What reads records of this format as events of this class."""
    return CODECS[format](event, record_bytes_max)
