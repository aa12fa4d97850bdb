"""The places settings come from, each read into a flat layer of `path -> (value, origin)`; layers stack."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Final

from streamer.errors import SettingsError
from streamer.renamed import SETTINGS, told
from streamer.settings.kafka_keys import ENVIRONMENT, HOME, SECTIONS, canonical, did_you_mean, refusal

SettingPath = tuple[str, ...]
Layer = dict[SettingPath, tuple[object, str]]

BOOTSTRAP: Final[SettingPath] = ("kafka", "common", "bootstrap.servers")

# Names under our prefixes that are not settings of a running service.
_OURS: Final = frozenset({"STREAMER_CONFIG", "STREAMER_CACHE", "STREAMER_TEST_KAFKA", "STREAMER_STATUS"})
# Set by Kafka's own images and scripts, often in a shell that starts this service too.
_KAFKA_SCRIPTS: Final = frozenset(
    {
        "KAFKA_CLUSTER_ID",
        "KAFKA_DEBUG",
        "KAFKA_GC_LOG_OPTS",
        "KAFKA_HEAP_OPTS",
        "KAFKA_HOME",
        "KAFKA_JMX_OPTS",
        "KAFKA_JVM_PERFORMANCE_OPTS",
        "KAFKA_LOG4J_OPTS",
        "KAFKA_OPTS",
        "KAFKA_VERSION",
    }
)
# Kubernetes adds these to every pod when a Service is called "kafka" or "streamer".
_SERVICE_LINK: Final = re.compile(
    r"(KAFKA|STREAMER)(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


def file_layer(config: Path | None) -> Layer:
    """The settings of a TOML file."""
    if config is None:
        return {}
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {config}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {config} is not TOML: {error}") from None
    return table_layer(document, f"file {config}")


def table_layer(table: Mapping[str, object], origin: str) -> Layer:
    """The settings of a table as TOML gives it; nested tables below a Kafka section are read as dotted keys."""
    return {path: (value, origin) for path, value in _flatten(table)}


def environment_layer(environment: Mapping[str, str], known: Set[SettingPath], mistakes: list[str]) -> Layer:
    """The settings in `STREAMER_*` and `KAFKA_*` names; an empty value is "not set"."""
    ours = {"STREAMER_" + "__".join(path).upper(): path for path in known}
    layer: Layer = {}
    for name, value in environment.items():
        if not value or name in _OURS or name in _KAFKA_SCRIPTS:
            continue
        if name.startswith("STREAMER_") and name in ours:
            layer[ours[name]] = (value, f"environment {name}")
        elif name.startswith("KAFKA_") and (key := ENVIRONMENT.get(name)):
            layer["kafka", HOME[key], key] = (value, f"environment {name}")
        elif name.startswith("KAFKA_") and (key := ENVIRONMENT.get(name.removesuffix("_FILE"))):
            if (text := _read_secret(name, value, mistakes)) is not None:
                layer["kafka", HOME[key], key] = (text, f"environment {name}")
        elif name.startswith(("STREAMER_", "KAFKA_")) and not _SERVICE_LINK.fullmatch(name):
            if (setting := SETTINGS.get(name.removeprefix("STREAMER_").lower())) is not None:
                mistakes.append(f"environment {told(name, f'STREAMER_{setting.upper()}')}")
                continue
            known_names = frozenset(ours if name.startswith("STREAMER_") else ENVIRONMENT)
            mistakes.append(f"environment {name}: not a known name{did_you_mean(name, known_names)}")
    return layer


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """Values from the command line, nested with `__`; None is "not given"."""
    layer: Layer = {}
    for name, value in flags.items():
        if value is not None:
            origin, path = "flag --" + re.sub("_+", "-", name), tuple(name.split("__"))
            rows = _flatten(value, path) if isinstance(value, Mapping) else [(path, value)]
            layer.update({leaf: (inner, origin) for leaf, inner in rows})
    return layer


def checked(layer: Layer, known: Set[SettingPath], mistakes: list[str]) -> Layer:
    """The entries of `layer` that are settings, under their one name; the others become mistakes."""
    result: Layer = {}
    for path, (value, origin) in layer.items():
        target = BOOTSTRAP if path == ("bootstrap",) else path
        if problem := _kafka_problem(target, value) if target[0] == "kafka" else _unknown(target, known):
            mistakes.append(f"{origin}: {problem}")
            continue
        if target[0] == "kafka":
            target = (*target[:2], canonical(target[2]))
        if target in result and result[target][0] != value:
            mistakes.append(f"{origin}: {target[-1]!r} is set twice, also by {result[target][1]}; keep one")
        result[target] = (value, origin)
    return result


def overlay(merged: Layer, layer: Layer) -> None:
    """Lay `layer` over `merged`. A common Kafka key also displaces what lower layers said for one client."""
    for path in layer:
        if path[:2] == ("kafka", "common"):
            for section in SECTIONS:
                merged.pop(("kafka", section, path[2]), None)
    merged.update(layer)


def nested(layer: Layer) -> dict[str, object]:
    """The layer as nested dicts, the form in which the model is validated."""
    tree: dict[str, object] = {}
    for path, (value, _) in layer.items():
        branch = tree
        for part in path[:-1]:
            branch = branch.setdefault(part, {})  # type: ignore[assignment]  # branches are dicts by construction
        branch[path[-1]] = value
    return tree


def dotted(path: SettingPath) -> str:
    """`path` as it is written in a message or a TOML file."""
    return ".".join(f'"{part}"' if "." in part else part for part in path)


def _flatten(table: Mapping[str, object], outer: SettingPath = ()) -> Iterator[tuple[SettingPath, object]]:
    for name, value in table.items():
        path = (*outer, name)
        if len(path) > 3 and path[0] == "kafka":
            path = (*path[:2], ".".join(path[2:]))
        if isinstance(value, Mapping):
            yield from _flatten(value, path)
        else:
            yield path, value


def _read_secret(name: str, value: str, mistakes: list[str]) -> str | None:
    try:
        return Path(value).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        mistakes.append(f"environment {name}: cannot read the file it names: {reason}")
        return None


def _kafka_problem(path: SettingPath, value: object) -> str | None:
    if len(path) != 3 or path[1] not in SECTIONS:
        return f"{dotted(path)} has no place; Kafka keys stand under [kafka.common], .consumer or .producer"
    return refusal(path[1], path[2], value)


def _unknown(path: SettingPath, known: Set[SettingPath]) -> str | None:
    if path in known:
        return None
    name = ".".join(path)
    if name in SETTINGS:
        return told(repr(name), repr(SETTINGS[name]))
    inner = sorted(".".join(other) for other in known if other[: len(path)] == path)
    if inner:
        return f"{name!r} is a table; set {' or '.join(repr(leaf) for leaf in inner)}"
    return f"{name!r} is not a setting{did_you_mean(name, frozenset('.'.join(other) for other in known))}"
