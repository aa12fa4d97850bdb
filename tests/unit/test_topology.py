"""Every mistake in a declaration is one error, on the line that is wrong, with the way out."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer import Model, Topology
from streamer.errors import ModelError, StreamerError, TopologyError
from streamer.planning.plan import Plan, bind
from streamer.settings.settings import Settings
from streamer.topology.loading import load_topology
from tests.kit.declared import (
    EVENT,
    FEATURES,
    FLAG,
    FLOW,
    INFER,
    NAME,
    PUBLISH,
    SOURCE,
    WINDOW,
    blamed,
    changed,
    declare,
    planned,
)
from tests.kit.models import write_model


def removed(line: str, marked: str) -> str:
    """The good file without a line; another one is to blame."""
    return changed(marked, marked).replace(f"    {line}\n", "", 1)


def test_the_good_file_binds() -> None:
    plan = planned(EVENT + FLOW)
    assert (plan.name, plan.group, plan.columns, plan.threshold) == ("t", "t", ("a",), 0.5)
    assert plan.topics.outputs() == ["dead", "out", "odd", "t-t-window-changelog"]


CLASS = 'class R(Event, topic="in", key="k", time="ts"):'
TWO_LINES = "\n    "
MISTAKES = {
    "class without topic": (changed(SOURCE, '.source(Event, dead_letters="dead")'), "class R(Event, topic='t')"),
    "source is no event": (changed(SOURCE, '.source(dict, dead_letters="dead")'), "takes an Event class with a topic"),
    "source is an instance": (changed(SOURCE, '.source(R("k", 1.0, 2.0), dead_letters="dead")'), "takes an Event class"),
    "key is no field": (changed(CLASS, 'class R(Event, topic="in", key="id", time="ts"):'), "key='id' is not a field; fields"),
    "time is no field": (changed(CLASS, 'class R(Event, topic="in", key="k", time="when"):'), "time='when' is not a field"),
    "unknown unit": (
        changed(CLASS, 'class R(Event, topic="in", key="k", time="ts", time_unit="ns"):'),
        "time_unit='ns' is not one of s, ms, us, iso",
    ),
    "format of the class": (changed(CLASS, 'class R(Event, topic="in", format="raw"):'), ".source(R, format='raw') instead of"),
    "unknown format": (changed(SOURCE, '.source(R, dead_letters="dead", format="avro")'), "format='avro' is not one of json,"),
    "time of a wrong type": (
        changed(SOURCE, SOURCE).replace("ts: float", "ts: str"),
        "time_unit='s', so its type must be float or int, not str",
    ),
    "iso time of a wrong type": (
        changed(SOURCE, SOURCE).replace('time="ts"', 'time="ts", time_unit="iso"'),
        "time_unit='iso', so its type must be str or datetime, not float",
    ),
    "no key for a window": (changed(WINDOW, WINDOW).replace(', key="k"', ""), "give the event class a key, class R(..., key="),
    "name that Kafka refuses": (changed(NAME, 'Topology("my flow")'), "letters, digits"),
    "no name": (changed(NAME, 'Topology("")'), "1 to 249"),
    "topic that Kafka refuses": (changed(SOURCE, '.source(R, dead_letters="a b")'), "dead_letters='a b': names of"),
    "dead letters go to the source": (changed(SOURCE, '.source(R, dead_letters="in")'), "dead_letters='in' is taken by topic="),
    "predictions are the source": (changed(PUBLISH, '.publish(predictions="in")'), "predictions='in' is taken by topic="),
    "anomalies are the predictions": (
        changed(PUBLISH, '.publish(predictions="out", anomalies="out")'),
        "anomalies='out' is taken by predictions=",
    ),
    "predictions are the changelog": (
        changed(PUBLISH, '.publish(predictions="t-t-window-changelog")'),
        "is taken by the changelog of the topology"
    ),
    "samples are text": (changed(WINDOW, '.window(rolling("60s", max_samples="8"))'), "1 to 65,536 samples of a key, not '8'"),
    "half a sample": (changed(WINDOW, ".window(rolling(count=8.5))"), "1 to 65,536 samples of a key, not 8.5"),
    "ages": (changed(WINDOW, '.window(rolling("99999999d"))'), "'99999999d' is longer than a hundred years"),
    "ages of silence": (changed(WINDOW, '.window(rolling("60s", ttl="99999999d"))'), "is longer than a hundred years"),
    "window is no rolling": (changed(WINDOW, ".window(64)"), "rolling(...), tumbling(...), hopping(...) or session(...), not 64"),
    "neither span nor count": (changed(WINDOW, ".window(rolling())"), 'rolling("60s"), or a count, rolling(count=64)'),
    "span and count": (changed(WINDOW, '.window(rolling("60s", count=4))'), "give either a span"),
    "bare span": (changed(WINDOW, '.window(rolling("60"))'), "'60' has no unit; write it with one"),
    "no span": (changed(WINDOW, '.window(rolling("0s"))'), "at least a microsecond wide"),
    "no samples": (changed(WINDOW, ".window(rolling(count=0))"), "1 to 65,536 samples of a key, not 0"),
    "too many samples": (changed(WINDOW, ".window(rolling(count=70_000))"), "1 to 65,536 samples of a key, not 70,000"),
    "too much memory": (changed(WINDOW, ".window(rolling(count=60_000))"), "keys per partition (keys_max) x 1 partition at"),
    "no ttl": (changed(WINDOW, '.window(rolling(count=4, ttl="0s"))'), "a ttl is at least a microsecond"),
    "ttl within the span": (changed(WINDOW, '.window(rolling("60s", ttl="59s"))'), "would forget samples that are still inside"),
    "features is no function": (changed(FEATURES, '.features({"mean": 1})'), "takes a function of a window"),
    "unknown field": (changed(FEATURES, '.features(lambda w: {"m": w.mean("b")})'), "no such field 'b' here; there are: ts, a"),
    "text in a window": (changed(FEATURES, '.features(lambda w: {"m": w.mean("note")})'), "the field 'note' is str"),
    "nullable text in a window": (
        changed(FEATURES, '.features(lambda w: {"m": w["n"]})').replace('note: str = ""', "n: str | None = None"),
        "the field 'n' is str | None, and only float, int and bool can be kept here; there are: ts, a",
    ),
    "unknown field of the event": (changed(FEATURES, '.features(lambda w: {"m": w.event("b")})'), "there are: k, ts, a, note"),
    "unknown method": (changed(FEATURES, '.features(lambda w: {"m": w.median("a")})'), "no attribute 'median'"),
    "features gives no dict": (changed(FEATURES, '.features(lambda w: w.mean("a"))'), "returns a dict of name -> numpy column"),
    "features gives nothing": (changed(FEATURES, ".features(lambda w: {})"), "returns a dict of name -> numpy column"),
    "feature is a number": (changed(FEATURES, '.features(lambda w: {"m": 1.0})'), "for 2 rows it has shape ()"),
    "feature of other rows": (changed(FEATURES, '.features(lambda w: {"m": w.mean("a")[:1]})'), "for 2 rows it has shape (1,)"),
    "feature is text": (changed(FEATURES, '.features(lambda w: {"m": w.event("k")})'), "must be numbers"),
    "feature is a cube": (changed(FEATURES, '.features(lambda w: {"m": w["a"][:, :, None]})'), "numbers of shape (rows,)"),
    "aggregate without window": (
        changed(FEATURES, FEATURES).replace(f"    {WINDOW}\n", ""),
        "mean('a') needs a window; add .window(rolling(count=64)) before .features()",
    ),
    "matrix without window": (
        changed(FEATURES, '.features(lambda w: {"m": w["a"]})').replace(f"    {WINDOW}\n", ""),
        "w['a'] needs a window; add .window(rolling(count=64))",
    ),
    "no look-back named": (
        changed(FEATURES, FEATURES).replace(WINDOW, '.window(rolling("1h", "24h"))'),
        "mean('a') over which look-back? The window has '1h', '24h'; name one, w.over('1h').mean('a')",
    ),
    "samples over no look-back": (
        changed(FEATURES, '.features(lambda w: {"m": w["a"]})').replace(WINDOW, ".window(rolling(count=(4, 8)))"),
        "w['a'] over which look-back? The window has 4, 8; name one, w.over(4)['a']",
    ),
    "unknown look-back": (
        changed(FEATURES, '.features(lambda w: {"m": w.over("7d").mean("a")})'),
        "the window does not look back '7d'; add it to rolling(), which has 4",
    ),
    "look-back without window": (
        changed(FEATURES, '.features(lambda w: {"m": w.over("7d").count})').replace(f"    {WINDOW}\n", ""),
        "over('7d') needs a window",
    ),
    "no quantile": (changed(FEATURES, '.features(lambda w: {"m": w.quantile("a", 95)})'), "a share of the samples, from 0 to 1"),
    "look-back given twice": (changed(WINDOW, '.window(rolling("60m", "1h"))'), "give each look-back once, not ('60m', '1h')"),
    "no look-back": (changed(WINDOW, ".window(rolling(count=()))"), "give each look-back once, not ()"),
    "quantile of panes": (
        changed(FEATURES, '.features(lambda w: {"m": w.quantile("a", 0.5)})').replace(
            WINDOW, '.window(rolling("30d", resolution="1h"))'
        ),
        "quantile('a', 0.5) needs every sample, and a window with resolution= keeps summaries",
    ),
    "distinct of panes": (
        changed(FEATURES, '.features(lambda w: {"m": w.distinct("a")})').replace(
            WINDOW, '.window(rolling("30d", resolution="1h"))'
        ),
        "distinct('a') needs every sample",
    ),
    "samples of panes": (
        changed(FEATURES, '.features(lambda w: {"m": w["a"]})').replace(WINDOW, '.window(rolling("30d", resolution="1h"))'),
        "w['a'] needs every sample",
    ),
    "panes by count": (changed(WINDOW, '.window(rolling(count=4, resolution="1h"))'), "resolution= is for spans"),
    "panes and samples": (changed(WINDOW, '.window(rolling("2h", max_samples=9, resolution="1h"))'), "in place of max_samples="),
    "panes that do not fit": (
        changed(WINDOW, '.window(rolling("24h", "90m", resolution="1h"))'), "'90m' is no multiple of resolution='1h'"
    ),
    "too many panes": (
        changed(WINDOW, '.window(rolling("30d", resolution="1s"))'), "makes 2,592,000 panes, and a key keeps 65,536 at most"
    ),
    "model is a name": (changed(INFER, '.infer("m")'), ".infer() takes Model('name'), not 'm'"),
    "bare deadline": (changed(INFER, '.infer(Model("m"), deadline="250")'), "deadline: '250' has no unit"),
    "deadline is a number": (changed(INFER, '.infer(Model("m"), deadline=0.25)'), "deadline: 0.25 has no unit"),
    "no batch": (changed(INFER, '.infer(Model("m"), max_batch=0)'), "max_batch=0 must be a whole number, at least 1"),
    "batch is text": (changed(INFER, '.infer(Model("m"), max_batch="8")'), "max_batch='8' must be a whole number"),
    "threshold is a word": (changed(FLAG, '.flag(above="high")'), "neither a number nor 'model.threshold'"),
    "threshold is nothing": (changed(FLAG, ".flag(above=None)"), "neither a number nor 'model.threshold'"),
    "threshold is no number": (changed(FLAG, '.flag(above=float("nan"))'), "neither a number nor 'model.threshold'"),
    "anomalies without flag": (removed(FLAG, PUBLISH), "anomalies='odd' needs a .flag(above=...) step before it"),
    "window after features": (
        changed(FEATURES, f"{FEATURES}{TWO_LINES}{WINDOW}").replace(f"    {WINDOW}\n", "", 1),
        ".window() comes after .features()",
    ),
    "two windows": (changed(WINDOW, f"{WINDOW}{TWO_LINES}{WINDOW}"), "source -> filter -> rekey -> join -> window -> "),
    "source last": (changed(PUBLISH, f"{PUBLISH}{TWO_LINES}{SOURCE}"), ".source() comes after .source() (flow.py:12)"),
    "no source": (removed(SOURCE, PUBLISH), "the topology has no .source() step"),
    "no features": (removed(FEATURES, PUBLISH), "the topology has no .features() step"),
    "no infer": (removed(INFER, PUBLISH), "the topology has no .infer() step"),
    "no publish": (removed(PUBLISH, FLAG), "the topology has no .publish() step"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_error_on_its_line(name: str) -> None:
    text, says = MISTAKES[name]
    with pytest.raises(TopologyError) as refusal:
        planned(text)
    message = str(refusal.value)
    assert message.startswith(blamed(text)), message
    assert says in message
    assert "\n" not in message
    assert refusal.value.exit_code == 2


def test_the_memory_message_names_a_number_that_fits() -> None:
    text = EVENT + FLOW.replace("count=4", "count=1000")
    with pytest.raises(TopologyError) as refusal:
        planned(text, keys_max=1_000_000, state_memory="64MiB")
    found = re.search(r"Lower keys_max to ([\d,]+)", str(refusal.value))
    assert found
    fits = int(found[1].replace(",", ""))
    planned(text, keys_max=fits, state_memory="64MiB")
    with pytest.raises(TopologyError):
        planned(text, keys_max=fits + 1, state_memory="64MiB")


def test_steps_do_not_change_the_topology_they_were_called_on() -> None:
    first = Topology("t")
    grown = declare(EVENT + FLOW)
    assert first.steps == ()
    assert len(grown.steps) == 6


# ---------------------------------------------------------------------- files and names


def test_a_file_that_fails_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "flow.py"
    path.write_text("x = 1\ny = x / 0\n")
    with pytest.raises(TopologyError, match=re.escape(f"{path}:2 failed to import: ZeroDivisionError: division by zero")):
        load_topology(f"{path}:flow")
    path.write_text("x = (\n")
    with pytest.raises(TopologyError, match=re.escape(f"{path}:1 failed to import: SyntaxError")):
        load_topology(f"{path}:flow")
    path.write_text("def f():\n    raise KeyError('deep')\n\n\nf()\n")
    with pytest.raises(TopologyError, match=re.escape(f"{path}:2 failed to import: KeyError: 'deep'")):
        load_topology(f"{path}:flow")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{0}/none.py:flow", "there is no file"),
        ("{0}/flow.py:other", "there are: {0}/flow.py:flow, {0}/flow.py:second"),
        ("{0}/flow.py", "there are: {0}/flow.py:flow"),
        ("{0}/flow.py:R", "is not a topology"),
        ("no.such.package:flow", "a file is given as path/to/file.py:object"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_there_is(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "flow.py").write_text(EVENT + FLOW + "second = flow\n")
    with pytest.raises(TopologyError) as refusal:
        load_topology(name.format(tmp_path))
    assert says.format(tmp_path) in str(refusal.value)


def test_a_topology_is_found_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(EVENT + FLOW)
    for name in ("flow.py", "flow.py:flow"):
        flow, folder = load_topology(f"{tmp_path}/{name}")
        assert (flow.name, folder) == ("t", tmp_path)


# ---------------------------------------------------------------------- against real models

NAMES = '["mean", "n"]'
TWO = EVENT + FLOW.replace('{"mean": w.mean("a")}', '{"n": w.count, "mean": w.mean("a")}')
MODEL_THRESHOLD = TWO.replace("above=0.5", 'above="model.threshold"')


def bound(models: Path, text: str = TWO) -> Plan:
    return bind(declare(text), Settings(), models)


def test_a_matrix_model_gets_the_columns_in_its_own_order(tmp_path: Path) -> None:
    write_model(tmp_path, inputs={"x": ("rows", 2)}, facts={"streamer.features": NAMES, "streamer.threshold": "1.25"})
    plan = bound(tmp_path, MODEL_THRESHOLD)
    assert plan.threshold == 1.25
    fed = plan.model.feed({"n": np.array([1.0, 2.0], np.float32), "mean": np.array([5.0, 6.0], np.float32)})
    assert fed["x"].tolist() == [[5.0, 1.0], [6.0, 2.0]]


REFUSED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "other names": (
        {"inputs": {"x": ("rows", 2)}, "facts": {"streamer.features": '["mean", "max"]'}}, TWO, "features(",
        "was trained on ['mean', 'max']; the features lack ['max'] and have ['n'] too many",
    ),
    "other width": ({"inputs": {"x": ("rows", 3)}}, TWO, "features(", "takes 3 columns, the features give 2"),
    "other inputs": (
        {"inputs": {"mean": ("rows", 1), "max": ("rows", 1)}}, TWO, "features(",
        "has the inputs ['max', 'mean'], the features are ['mean', 'n']",
    ),
    "no threshold": ({"inputs": {"x": ("rows", 2)}}, MODEL_THRESHOLD, "flag(", "carries no streamer.threshold"),
    "no such output": (
        {"inputs": {"x": ("rows", 2)}, "facts": {"streamer.output": "label"}}, TWO, "infer(", "no float output 'label'",
    ),
    "no float output": ({"inputs": {"x": ("rows", 2)}, "kind": 7}, TWO, "infer(", "no float output"),
    "threshold is no number": (
        {"inputs": {"x": ("rows", 2)}, "facts": {"streamer.threshold": "high"}}, TWO, "infer(", "metadata cannot be read",
    ),
    "threshold is NaN": (
        {"inputs": {"x": ("rows", 2)}, "facts": {"streamer.threshold": "nan"}}, TWO, "infer(", "metadata cannot be read",
    ),
    "features are no list": (
        {"inputs": {"x": ("rows", 2)}, "facts": {"streamer.features": "3"}}, TWO, "infer(", "metadata cannot be read",
    ),
    "centers of another length": (
        {"inputs": {"x": ("rows", 2)}, "facts": {"streamer.features": NAMES, "streamer.center": "[1]", "streamer.scale": "[1]"}},
        TWO, "infer(", "one number for each of streamer.features",
    ),
    "centers of nothing": (
        {"inputs": {"mean": ("rows", 1), "n": ("rows", 1)}, "facts": {"streamer.center": "[1, 2]", "streamer.scale": "[1, 2]"}},
        TWO, "infer(", "one number for each of streamer.features",
    ),
    "no such version": (
        {"inputs": {"x": ("rows", 2)}}, TWO.replace('"m")', '"m", version=3)'), "infer(", "no version 3; there are 1",
    ),
    "no such model": ({"inputs": {"x": ("rows", 2)}}, TWO.replace('"m")', '"n")'), "infer(", "(there is: m)"),
    "no aliases": ({"inputs": {"x": ("rows", 2)}}, TWO.replace('"m")', '"m", alias="best")'), "infer(", '{"best": 1}'),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_does_not_fit_is_refused_with_the_line_and_both_sides(name: str, tmp_path: Path) -> None:
    model, text, step, says = REFUSED[name]
    write_model(tmp_path, **model)
    (line,) = [number for number, content in enumerate(text.splitlines(), 1) if f".{step}" in content]
    with pytest.raises(ModelError) as refusal:
        bound(tmp_path, text)
    assert str(refusal.value).startswith(f"flow.py:{line}: "), refusal.value
    assert says in str(refusal.value)
    assert refusal.value.exit_code == 4


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, inputs={"x": ("rows", 2)})
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded"):
        bound(tmp_path)


@pytest.mark.parametrize(("column", "fits"), [("0", True), ("1", True), ("-1", True), ("2", False), ("-3", False)])
def test_a_score_column_that_is_not_there_stops_the_start(tmp_path: Path, column: str, fits: bool) -> None:
    write_model(tmp_path, inputs={"x": ("rows", 2)}, output=("rows", 2), facts={"streamer.column": column})
    if fits:
        bound(tmp_path)
        return
    with pytest.raises(ModelError, match=r"streamer\.column is -?\d, but 'score' has 2 columns"):
        bound(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"other": 1}', '{"best": "x"}', '{"best": null}'])
def test_an_alias_that_leads_nowhere_says_so(tmp_path: Path, text: str) -> None:
    write_model(tmp_path, inputs={"x": ("rows", 2)})
    (tmp_path / "m" / "aliases.json").write_text(text)
    with pytest.raises(ModelError, match="does not map 'best' to a version number"):
        bound(tmp_path, TWO.replace('Model("m")', 'Model("m", alias="best")'))


def test_which_version_serves(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write_model(tmp_path, inputs={"x": ("rows", 2)}, version=version)
    (tmp_path / "m" / "aliases.json").write_text('{"champion": 2}')
    (tmp_path / "m" / "junk").mkdir()

    def served(model: Model) -> int:
        return bound(tmp_path, TWO.replace('Model("m")', repr(model).replace("Model(name=", "Model("))).model.file.version

    assert served(Model("m")) == 10
    assert served(Model("m", version=1)) == 1
    assert served(Model("m", alias="champion")) == 2


def test_all_errors_are_ours() -> None:
    assert issubclass(TopologyError, StreamerError)
    assert issubclass(ModelError, StreamerError)
