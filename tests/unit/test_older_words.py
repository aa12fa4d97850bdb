"""The same topology in the words of an older tree."""

import ast
from pathlib import Path

import pytest

from streamer import renamed
from tests.kit.older_words import words_of

TREE_OF_TODAY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("today", "before"),
    [
        ("Topology('t').source(R, dead_letters='d')", "Topology('t').source(R, rejected='d')"),
        ("a.join(as_of(R), dead_letters='d', idle_timeout='1s')", "a.join(latest(R), rejected='d', idle='1s')"),
        ("hopping('2s', hop='1s', grace='3s')", "hopping('2s', every='1s', late='3s')"),
        ("a.window(tumbling('2s')).publish(late_events='l')", "a.window(tumbling('2s')).publish(late='l')"),
        ("from streamer import LabelMatch, as_of", "from streamer import Topology, latest"),
        (
            "LabelMatch('t').predictions(P, dead_letters='d').labels(L, within='1d', out_of_order='1s').publish(matched='m')",
            "Topology('t').source(P, rejected='d').match(L, within='1d', late='1s').publish(matched='m')",
        ),
        ("Names(dead_letters=names.predictions)", "Names(dead_letters=names.predictions)"),
    ],
)
def test_a_file_is_put_into_older_words(today: str, before: str, tmp_path: Path) -> None:
    assert words_of(tmp_path).file(today) == ast.unparse(ast.parse(before))


def test_settings_too(tmp_path: Path) -> None:
    given = {"STREAMER_STATE_MEMORY": "8GiB", "STREAMER_START_FROM": "latest", "STREAMER_KEYS_MAX": "9", "KAFKA_ACKS": "all"}
    assert words_of(tmp_path).environment(given) == {
        "STREAMER_MEMORY": "8GiB", "STREAMER_START": "latest", "STREAMER_KEYS_MAX": "9", "KAFKA_ACKS": "all",
    }  # fmt: skip


def test_a_tree_that_knows_a_name_hears_it(tmp_path: Path) -> None:
    today = "LabelMatch('t').labels(L, out_of_order='1s')\na.join(as_of(R), dead_letters='d')"
    assert words_of(TREE_OF_TODAY).file(today) == ast.unparse(ast.parse(today))
    table = tmp_path / "streamer" / "renamed.py"
    table.parent.mkdir()
    table.write_text(
        "ARGUMENTS = {'Topology.join': {'late': 'out_of_order'}}\n"
        f"FUNCTIONS, STEPS, SETTINGS = {{}}, {dict.fromkeys(renamed.STEPS, '')!r}, {{}}"
    )
    half = words_of(tmp_path)
    assert (
        half.file("a.join(as_of(R), out_of_order='1s', dead_letters='d')") == "a.join(latest(R), out_of_order='1s', rejected='d')"
    )
    assert half.file("LabelMatch('t').labels(L)") == "LabelMatch('t').labels(L)"
