"""Every setting of the service and where it came from: flag > environment > file > default."""

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
)

from streamer.errors import SettingsError
from streamer.settings.kafka_keys import HOME, SHOWN, KafkaValue, Section, sealed
from streamer.settings.secrets import REDACTED, know
from streamer.settings.sources import (
    BOOTSTRAP,
    Layer,
    SettingPath,
    checked,
    dotted,
    environment_layer,
    file_layer,
    flag_layer,
    nested,
    overlay,
    table_layer,
)
from streamer.units import format_bytes, format_duration, parse_bytes, parse_duration_s

DEFAULT_BOOTSTRAP: Final = "127.0.0.1:9092"

Seconds = Annotated[float, BeforeValidator(parse_duration_s)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
KafkaKeys = Annotated[dict[str, KafkaValue], AfterValidator(sealed)]


class HttpAddress(NamedTuple):
    """Where health, metrics and the live page are served; port 0 takes a free one."""

    host: str
    port: int


def parse_http(text: object) -> HttpAddress | None:
    """`HOST:PORT` (IPv6 in brackets), or None for "off"."""
    if text is None or isinstance(text, HttpAddress):
        return text
    if text == "off":
        return None
    host, colon, port = str(text).rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f'{text!r} is not an address; write HOST:PORT, such as "127.0.0.1:8080", or "off"')
    return HttpAddress(host.strip("[]"), int(port))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _default_common() -> dict[str, KafkaValue]:
    return {"bootstrap.servers": DEFAULT_BOOTSTRAP}


class KafkaSettings(_Part):
    """librdkafka's own keys, dotted and untouched. A key in a client's section beats the common one."""

    common: KafkaKeys = Field(default_factory=_default_common)
    consumer: KafkaKeys = {}
    producer: KafkaKeys = {}


class InferenceSettings(_Part):
    """How much of the machine the model may have."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Batches that run at the same time."""
    intra_op_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads inside one run; more than one pays only for large models."""


class LogSettings(_Part):
    """What is logged and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """"auto" is readable in a terminal and JSON lines elsewhere."""


@dataclass(frozen=True, slots=True)
class Described:
    """One setting as `config show` prints it; `value` is already redacted."""

    name: str
    value: str
    origin: str


class Settings(_Part):
    """The settings of one service process. Durations are held in seconds, sizes in bytes."""

    kafka: KafkaSettings = KafkaSettings()
    group: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Consumer group; also names the changelog and the transactions. None: the topology's name."""
    slot: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """This replica's fixed name in the group, so that a restart takes over at once. None: see `slot_name`."""
    guarantee: Literal["exactly-once", "at-least-once"] = "exactly-once"
    start_from: Literal["earliest", "latest"] = "earliest"
    """Where a group without committed offsets begins."""
    on_lost_offsets: Literal["stop", "earliest", "latest"] = "stop"
    """What to do when retention removed records that were not processed yet."""
    on_partitioner_mismatch: Literal["warn", "stop"] = "warn"
    """What to do when inputs that meet by key were put on their partitions by different rules."""
    models: Path | None = None
    """Model repository. None: the `models` folder beside the topology."""
    state_memory: Annotated[Bytes, Field(ge=1024**2)] = parse_bytes("1GiB")
    """Budget for window state; a topology that may need more is refused at start."""
    # A window of 256 samples by time, the default, takes 4.4 kB a key for one field: 30,000 keys on each of 8 partitions are
    # just within the budget of 1 GiB.
    keys_max: Annotated[int, Field(ge=1)] = 30_000
    """Live keys of one partition; when there are more, the key seen longest ago is forgotten."""
    waiting_max: Annotated[int, Field(ge=1)] = 30_000
    """Predictions and labels of one partition that wait for each other; what comes beyond is a dead letter."""
    commit_interval: Annotated[Seconds, Field(ge=0.001, le=10)] = parse_duration_s("20ms")
    """Age at which an open transaction commits; it bounds the latency a reader sees."""
    drain_timeout: Annotated[Seconds, Field(ge=0, le=600)] = parse_duration_s("10s")
    """How long a stopping worker may finish what it has read."""
    max_ahead: Annotated[Seconds, Field(ge=0)] = parse_duration_s("1h")
    """How far an event time may lie after its log time before the event is a dead letter."""
    record_bytes_max: Annotated[Bytes, Field(ge=1024, le=64 * 1024**2)] = parse_bytes("1MiB")
    """Largest input value that is decoded; a larger one is a dead letter."""
    dead_letters_stop: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of dead letters in a minute at which the service stops. None: it only raises the alarm."""
    http: Annotated[HttpAddress | None, BeforeValidator(parse_http)] = HttpAddress("127.0.0.1", 8080)
    inference: InferenceSettings = InferenceSettings()
    log: LogSettings = LogSettings()

    _origins: dict[SettingPath, str] = PrivateAttr(default_factory=dict)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Keep secrets out of `repr` and `str`: both show what `describe` shows."""
        return ((row.name, row.value) for row in self.describe())

    @classmethod
    def load(cls, config: Path | None = None, **flags: object) -> "Settings":
        """Settings of this process.

        Args:
            config: a TOML file; without one, the file named by `STREAMER_CONFIG` if that is set.
            flags: values from the command line, nested with `__` (`log__level="debug"`); None is "not given".
                `bootstrap` stands for `kafka.common."bootstrap.servers"`; `kafka` takes the three sections.

        Raises:
            SettingsError: every mistake found, one a line.
        """
        environment = os.environ
        named = config or (Path(name) if (name := environment.get("STREAMER_CONFIG")) else None)
        mistakes: list[str] = []
        layers = (file_layer(named), environment_layer(environment, _KNOWN, mistakes), flag_layer(flags))
        return cls._of(layers, mistakes)

    @classmethod
    def given(cls, table: Mapping[str, object], origin: str) -> "Settings":
        """Settings as one table says, written as in a TOML file; no file and no environment is read.

        Args:
            table: name -> value, such as `{"commit_interval": "50ms", "inference": {"threads": 2}}`.
            origin: what messages call it.

        Raises:
            SettingsError: every mistake found, one a line.
        """
        return cls._of([table_layer(table, origin)], [])

    @classmethod
    def _of(cls, layers: Iterable[Layer], mistakes: list[str]) -> "Settings":
        """Lay layers over each other, the last one on top; `mistakes` are those known already."""
        merged: Layer = {BOOTSTRAP: (DEFAULT_BOOTSTRAP, "default")}
        for layer in layers:
            overlay(merged, checked(layer, _KNOWN, mistakes))
        settings = None
        try:
            settings = cls.model_validate(nested(merged))
        except ValidationError as error:
            mistakes += _readable(error, merged)
        if mistakes or settings is None:
            raise SettingsError("\n".join(mistakes))
        know(settings.secrets())
        settings._origins.update({path: origin for path, (_, origin) in merged.items()})  # noqa: SLF001 - our own
        return settings

    @property
    def bootstrap(self) -> str:
        """The brokers to start from, HOST:PORT separated by commas."""
        return str(self.kafka.common.get("bootstrap.servers", DEFAULT_BOOTSTRAP))

    @property
    def slot_name(self) -> str | None:
        """The fixed name of this replica: `slot`, else librdkafka's `group.instance.id`, else None."""
        instance = self.consumer_config().get("group.instance.id")
        return self.slot or (str(instance) if instance else None)

    def named(self, name: str, role: str | None) -> "Settings":
        """The same settings for clients that name themselves to the brokers, in their logs, metrics and quotas.

        A `client.id` that a person has set stays.
        """
        if any("client.id" in section for section in (self.kafka.common, self.kafka.consumer, self.kafka.producer)):
            return self
        common = {**self.kafka.common, "client.id": f"{name}-{role}" if role else name}
        return self.model_copy(update={"kafka": self.kafka.model_copy(update={"common": common})})

    def consumer_config(self) -> dict[str, KafkaValue]:
        """Librdkafka keys for a consumer, as set by the user; guarantees are laid on top by the caller."""
        return self._client("consumer")

    def producer_config(self) -> dict[str, KafkaValue]:
        """Librdkafka keys for a producer, as set by the user; guarantees are laid on top by the caller."""
        return self._client("producer")

    def admin_config(self) -> dict[str, KafkaValue]:
        """Librdkafka keys for an admin client: connection and security only."""
        return self._client("common")

    def _client(self, section: Section) -> dict[str, KafkaValue]:
        fitting = {k: v for k, v in self.kafka.common.items() if HOME.get(k, "common") in ("common", section)}
        own: dict[str, KafkaValue] = {} if section == "common" else getattr(self.kafka, section)
        return {"bootstrap.servers": self.bootstrap, **fitting, **own}

    def describe(self) -> list[Described]:
        """Every setting with its value and origin, in the order of declaration; safe to print."""
        rows = []
        for path, value in _leaves(self):
            rows.append(Described(dotted(path), _shown(path, value), self._origins.get(path, "default")))
        return rows

    def secrets(self) -> list[str]:
        """The values that must not be printed, for `configure_logs` to cut out of any text; passwords also as SASL sends them."""
        found = []
        for section in (self.kafka.common, self.kafka.consumer, self.kafka.producer):
            found += [str(value) for key, value in section.items() if key not in SHOWN]
            user = section.get("sasl.username", self.kafka.common.get("sasl.username"))
            if user is not None and (password := section.get("sasl.password")) is not None:
                found += [f"\0{user}\0{password}", f"{user}:{password}"]
        return found

    def warnings(self) -> list[str]:
        """What is allowed but unwise, each with the way out."""
        config = self.admin_config()
        found = []
        protocol = str(config.get("security.protocol", "plaintext")).lower()
        remote = [host for host in map(_host, self.bootstrap.split(",")) if not _is_loopback(host)]
        if protocol in ("plaintext", "sasl_plaintext") and remote:
            found.append(
                f"connection to {', '.join(remote)} is {protocol.upper()}: events"
                f"{' and the password' if protocol == 'sasl_plaintext' else ''} can be read on the way; "
                "set security.protocol to SSL or SASL_SSL"
            )
        if str(config.get("enable.ssl.certificate.verification", "true")).lower() == "false":
            found.append("enable.ssl.certificate.verification=false: anyone can pose as the broker")
        if str(config.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
            found.append("ssl.endpoint.identification.algorithm=none: any server of the same CA passes")
        return found


def _known(model: type[BaseModel], outer: SettingPath = ()) -> Iterator[SettingPath]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _known(field.annotation, (*outer, name))
        else:
            yield (*outer, name)


_KNOWN: Final = frozenset(path for path in _known(Settings) if path[0] != "kafka")
_UNITS: Final = {
    name: marker.func
    for name, field in Settings.model_fields.items()
    for marker in field.metadata
    if isinstance(marker, BeforeValidator)
}


def _leaves(value: object, path: SettingPath = ()) -> Iterator[tuple[SettingPath, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        yield from (((*path, key), inner) for key, inner in sorted(value.items()))
    else:
        yield path, value


def _shown(path: SettingPath, value: object) -> str:
    if path[0] == "kafka" and path[-1] not in SHOWN:
        return REDACTED
    if isinstance(value, HttpAddress):
        return f"[{value.host}]:{value.port}" if ":" in value.host else f"{value.host}:{value.port}"
    if isinstance(value, float) and _UNITS.get(path[0]) is parse_duration_s:
        return format_duration(value)
    if isinstance(value, int) and _UNITS.get(path[0]) is parse_bytes:
        return format_bytes(value)
    if value is None:
        return "off" if path == ("http",) else "-"
    return str(value)


def _readable(error: ValidationError, merged: Layer) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False):
        path = tuple(str(part) for part in problem["loc"])
        while path not in merged and path:
            path = path[:-1]  # a union adds the name of its branch
        value, origin = merged.get(path, ("", "code"))
        message = problem["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        unit = _UNITS.get(path[0]) if path else None
        for name, bound in problem.get("ctx", {}).items():
            if unit is parse_duration_s and name in ("ge", "le"):
                message = message.replace(f"{bound}", format_duration(bound))
            if unit is parse_bytes and name in ("ge", "le"):
                message = message.replace(f"{bound}", format_bytes(bound))
        shown = "" if path[:1] == ("kafka",) or repr(value) in message else f" = {value!r}"
        yield f"{origin}: {dotted(path)}{shown}: {message}"


def _host(address: str) -> str:
    host, colon, port = address.strip().rpartition(":")
    return (host if colon and port.isdecimal() else address.strip()).strip("[]")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
