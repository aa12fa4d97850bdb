"""Settings: who wins, what is refused and why, and that no secret is ever shown."""

import os
import re
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from streamer.errors import SettingsError
from streamer.settings.kafka_keys import ALIASES, ENVIRONMENT, HIDDEN, HOME, SHOWN, Secret, canonical
from streamer.settings.settings import HttpAddress, Settings, parse_http
from streamer.units import format_bytes, format_duration, parse_bytes, parse_duration_s

CANARY = "canary-7f3a-Pa55"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("STREAMER_", "KAFKA_")):
            monkeypatch.delenv(name)


def toml(folder: Path, text: str) -> Path:
    path = folder / "streamer.toml"
    path.write_text(text, encoding="utf-8")
    return path


def origin_of(settings: Settings, name: str) -> str:
    return next(row.origin for row in settings.describe() if row.name == name)


def refused(config: Path | None = None, /, **flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(config, **flags)
    return str(caught.value)


class TestPrecedence:
    def test_defaults_stand_alone(self) -> None:
        settings = Settings.load()
        assert settings.bootstrap == "127.0.0.1:9092"
        assert settings.commit_interval == 0.02
        assert settings.drain_timeout == 10.0
        assert settings.state_memory == 1024**3
        assert settings.http == HttpAddress("127.0.0.1", 8080)
        assert {row.origin for row in settings.describe()} == {"default"}

    def test_flag_beats_environment_beats_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = toml(tmp_path, 'group = "file"\nslot = "file"\nguarantee = "at-least-once"\n')
        monkeypatch.setenv("STREAMER_GROUP", "environment")
        monkeypatch.setenv("STREAMER_SLOT", "environment")
        settings = Settings.load(file, group="flag", slot=None)
        assert (settings.group, settings.slot, settings.guarantee) == ("flag", "environment", "at-least-once")
        assert origin_of(settings, "group") == "flag --group"
        assert origin_of(settings, "slot") == "environment STREAMER_SLOT"
        assert origin_of(settings, "guarantee") == f"file {file}"

    def test_nested_settings_from_every_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = toml(tmp_path, "[inference]\nthreads = 3\nintra_op_threads = 2\n")
        monkeypatch.setenv("STREAMER_INFERENCE__THREADS", "5")
        settings = Settings.load(file, log__level="debug")
        assert (settings.inference.threads, settings.inference.intra_op_threads) == (5, 2)
        assert settings.log.level == "debug"

    def test_bootstrap_is_one_setting_with_many_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = toml(tmp_path, '[kafka.common]\nmetadata.broker.list = "file:1"\n')
        assert Settings.load(file).bootstrap == "file:1"
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:1")
        assert Settings.load(file).bootstrap == "environment:1"
        assert Settings.load(file, bootstrap="flag:1").consumer_config() == {"bootstrap.servers": "flag:1"}

    def test_an_alias_does_not_slip_past_a_higher_layer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = toml(tmp_path, '[kafka.producer]\n"queue.buffering.max.ms" = 50\n')
        assert Settings.load(file).producer_config()["linger.ms"] == 50
        monkeypatch.setenv("KAFKA_LINGER_MS", "2")
        producer = Settings.load(file).producer_config()
        assert producer["linger.ms"] == "2"
        assert "queue.buffering.max.ms" not in producer

    def test_a_common_key_from_above_displaces_a_client_key_from_below(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = toml(tmp_path, '[kafka.consumer]\n"client.id" = "file"\n')
        monkeypatch.setenv("KAFKA_CLIENT_ID", "environment")
        assert Settings.load(file).consumer_config()["client.id"] == "environment"

    def test_the_config_file_can_be_named_by_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMER_CONFIG", str(toml(tmp_path, 'group = "g"')))
        assert Settings.load().group == "g"

    def test_an_empty_variable_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMER_SLOT", "")
        monkeypatch.setenv("KAFKA_CLIENT_ID", "")
        settings = Settings.load()
        assert settings.slot is None
        assert "client.id" not in settings.consumer_config()


class TestMistakes:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({"comit_interval": "20ms"}, ["--comit-interval", "did you mean 'commit_interval'"]),
            ({"commit_interval": "20"}, ["has no unit", "20ms"]),
            ({"commit_interval": 20}, ["has no unit", "20ms"]),
            ({"commit_interval": "20s"}, ["less than or equal to 10s"]),
            ({"commit_interval": "20 parsecs"}, ["'parsecs'", "not a unit"]),
            ({"state_memory": "512"}, ["has no unit", "512MiB"]),
            ({"state_memory": "512M"}, ["'M'", "MiB"]),
            ({"state_memory": "1KiB"}, ["greater than or equal to 1MiB"]),
            ({"guarantee": "exactly_once"}, ["'exactly-once' or 'at-least-once'"]),
            ({"http": "8080"}, ["HOST:PORT", "off"]),
            ({"log": "debug"}, ["is a table", "log.level"]),
            ({"inference__threads": "many"}, ["inference.threads", "integer"]),
            ({"kafka": {"linger.ms": 5}}, ["[kafka.common]"]),
            ({"kafka": {"consumer": {"acks": "all"}}}, ["producer key", "[kafka.producer]"]),
            ({"kafka": {"common": {"bootstrap.server": "a:1"}}}, ["did you mean 'bootstrap.servers'"]),
            ({"kafka": {"common": {"bootstrap.servers": ["a:1", "b:1"]}}}, ["takes one value", "a,b"]),
        ],
    )
    def test_each_says_what_and_how(self, flags: dict[str, Any], words: list[str]) -> None:
        message = refused(**flags)
        assert [word for word in words if word not in message] == []

    def test_all_mistakes_are_told_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMER_GRUOP", "x")
        monkeypatch.setenv("KAFKA_LINGER_MSS", "x")
        message = refused(toml(tmp_path, 'start_fro = "latest"'), sllot="x")
        assert len(message.splitlines()) == 4
        for hint in ("'STREAMER_GROUP'", "'KAFKA_LINGER_MS'", "'start_from'", "'slot'"):
            assert f"did you mean {hint}?" in message

    def test_values_that_are_wrong_are_told_beside_names_that_are(self, tmp_path: Path) -> None:
        file = toml(
            tmp_path,
            'grup = "x"\nkeys_max = 0\ncommit_interval = 20\nguarantee = "twice"\n[kafka.common]\n"linger.mss" = 1\n[inference]\n'
            'threads = "two"\n',
        )
        message = refused(file)
        for name in ("'grup'", "keys_max", "commit_interval", "guarantee", "linger.mss", "inference.threads"):
            assert sum(name in line for line in message.splitlines()) == 1, f"{name}: {message}"
        assert len(message.splitlines()) == 6

    def test_toml_errors_name_file_and_line(self, tmp_path: Path) -> None:
        assert "line 2" in refused(toml(tmp_path, 'group = "x"\nslot = \n'))
        assert "absent.toml: No such file" in refused(tmp_path / "absent.toml")

    def test_one_key_twice_in_one_place(self, tmp_path: Path) -> None:
        file = toml(tmp_path, 'bootstrap = "a:1"\n[kafka.common]\n"bootstrap.servers" = "b:1"\n')
        assert "set twice" in refused(file)

    @pytest.mark.parametrize(
        ("section", "key", "value", "way_out"),
        [
            ("consumer", "group.id", "g", "`group`"),
            ("consumer", "enable.auto.commit", True, "committed with the results"),
            ("consumer", "auto.commit.enable", True, "committed with the results"),
            ("consumer", "enable.auto.offset.store", "true", "committed with the results"),
            ("consumer", "isolation.level", "read_uncommitted", "rolled back"),
            ("consumer", "auto.offset.reset", "latest", "`on_lost_offsets`"),
            ("producer", "enable.idempotence", False, "twice"),
            ("producer", "transactional.id", "t", "`slot`"),
            ("producer", "partitioner", "random", "Java"),
            ("producer", "delivery.report.only.error", True, "counted"),
            ("producer", "acks", "1", "replicas"),
            ("producer", "request.required.acks", 0, "replicas"),
        ],
    )
    def test_a_key_a_guarantee_rests_on(self, section: str, key: str, value: object, way_out: str) -> None:
        message = refused(kafka={section: {key: value}})
        assert key in message
        assert way_out in message

    def test_the_same_key_is_welcome_where_it_agrees(self) -> None:
        settings = Settings.load(
            kafka={
                "consumer": {"enable.auto.commit": False, "isolation.level": "read_committed"},
                "producer": {"acks": "all", "enable.idempotence": True},
            }
        )
        assert settings.producer_config()["acks"] == "all"


class TestKafkaKeys:
    def test_each_client_gets_the_keys_it_understands(self) -> None:
        settings = Settings.load(
            kafka={
                "common": {"client.id": "c", "session.timeout.ms": 6000, "linger.ms": 1},
                "consumer": {"client.id": "mine"},
            }
        )
        bootstrap = {"bootstrap.servers": "127.0.0.1:9092"}
        assert settings.consumer_config() == {**bootstrap, "client.id": "mine", "session.timeout.ms": 6000}
        assert settings.producer_config() == {**bootstrap, "client.id": "c", "linger.ms": 1}
        assert settings.admin_config() == {**bootstrap, "client.id": "c"}

    def test_table_is_sound(self) -> None:
        assert len(HOME) > 150
        assert len(ENVIRONMENT) == len(HOME)  # no two keys share a variable
        assert HIDDEN.isdisjoint(SHOWN)
        assert all(alias in HOME and key in HOME for alias, key in ALIASES.items())
        assert all(HOME[alias] == HOME[key] for alias, key in ALIASES.items())
        assert all(canonical(key) == key for key in ALIASES.values())

    def test_nothing_that_smells_of_a_secret_is_on_the_allow_list(self) -> None:
        smelling = {k for k in SHOWN if re.search(r"password|passphrase|secret|\.pem$|config$|kinit", k)}
        assert smelling == set()

    def test_every_key_exists_in_the_installed_librdkafka(self) -> None:
        unknown = []
        for key in HOME:
            # TypeError: the Python binding knows the key itself, and wants a bool
            with pytest.raises((confluent_kafka.KafkaException, TypeError)) as caught:
                confluent_kafka.Producer({key: "never a value", "no.such.key": 1})
            if f'"{key}"' in str(caught.value) and "No such configuration" in str(caught.value):
                unknown.append(key)
        assert unknown == []

    def test_names_other_people_set_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (
            "KAFKA_HOME",
            "KAFKA_HEAP_OPTS",
            "KAFKA_SERVICE_HOST",
            "KAFKA_SERVICE_PORT_TLS",
            "KAFKA_PORT",
            "KAFKA_PORT_9092_TCP_ADDR",
            "STREAMER_SERVICE_HOST",
            "STREAMER_PORT_8080_TCP",
            "STREAMER_TEST_KAFKA",
        ):
            monkeypatch.setenv(name, "x")
        assert Settings.load().group is None

    def test_slot_falls_back_to_static_membership(self) -> None:
        kafka = {"consumer": {"group.instance.id": "pod-3"}}
        assert Settings.load().slot_name is None
        assert Settings.load(kafka=kafka).slot_name == "pod-3"
        assert Settings.load(kafka=kafka, slot="s").slot_name == "s"


class TestSecrets:
    def secret_settings(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Settings:
        (folder / "key-password").write_text(CANARY + "-file\n")
        monkeypatch.setenv("KAFKA_SASL_PASSWORD", CANARY)
        monkeypatch.setenv("KAFKA_SSL_KEY_PASSWORD_FILE", str(folder / "key-password"))
        return Settings.load(toml(folder, f'[kafka.common]\n"sasl.oauthbearer.config" = "secret={CANARY}"\n'))

    def test_they_reach_the_client_unchanged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = self.secret_settings(monkeypatch, tmp_path).consumer_config()
        assert config["sasl.password"] == CANARY
        assert config["ssl.key.password"] == CANARY + "-file"
        assert f"{config['sasl.password']}" == CANARY  # what librdkafka's binding passes on is str(value)

    def test_they_are_never_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = self.secret_settings(monkeypatch, tmp_path)
        shown = [repr(settings), str(settings), repr(settings.kafka), repr(settings.describe())]
        shown += [repr(settings.consumer_config()), repr(settings.warnings()), repr(settings.kafka.common)]
        assert len(settings.secrets()) == 3
        assert "***" in shown[0]
        assert [text for text in shown if CANARY in text] == []

    def test_not_even_in_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFKA_SASL_PASWORD", CANARY)
        monkeypatch.setenv("KAFKA_SASL_PASSWORD", CANARY)
        message = refused(
            group="",
            kafka={"common": {"sasl.pasword": CANARY, "ssl.key.password": [CANARY]}},
        )
        assert "sasl.pasword" in message
        assert CANARY not in message

    def test_validation_hides_its_input_too(self) -> None:
        with pytest.raises(ValueError, match="keys_max") as caught:
            Settings.model_validate({"kafka": {"common": {"sasl.password": [CANARY]}}, "keys_max": 0})
        assert CANARY not in str(caught.value)

    def test_a_missing_secret_file_is_named_by_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", "/nowhere/at/all")
        assert refused().startswith("environment KAFKA_SASL_PASSWORD_FILE: cannot read the file")

    def test_a_secret_prints_as_stars(self) -> None:
        assert repr({"sasl.password": Secret(CANARY)}) == "{'sasl.password': '***'}"


class TestWarnings:
    @pytest.mark.parametrize("bootstrap", ["localhost:9092", "127.0.0.1:9092,[::1]:9092", "127.3.2.1:1"])
    def test_loopback_may_be_plain(self, bootstrap: str) -> None:
        assert Settings.load(bootstrap=bootstrap).warnings() == []

    @pytest.mark.parametrize("bootstrap", ["kafka:9092", "127.0.0.1:9092,10.0.0.5:9092"])
    def test_the_network_should_not(self, bootstrap: str) -> None:
        (warning,) = Settings.load(bootstrap=bootstrap).warnings()
        assert "PLAINTEXT" in warning
        assert "SASL_SSL" in warning
        secure = Settings.load(bootstrap=bootstrap, kafka={"common": {"security.protocol": "SASL_SSL"}})
        assert secure.warnings() == []

    def test_tls_without_its_checks(self) -> None:
        common = {
            "security.protocol": "ssl",
            "enable.ssl.certificate.verification": False,
            "ssl.endpoint.identification.algorithm": "none",
        }
        assert len(Settings.load(kafka={"common": common}).warnings()) == 2


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("250ms", 0.25), ("20s", 20.0), ("1.5 s", 1.5), ("2m", 120.0), ("1h", 3600.0), ("100us", 1e-4)],
    )
    def test_durations(self, text: str, seconds: float) -> None:
        assert parse_duration_s(text) == seconds
        assert parse_duration_s(format_duration(seconds)) == seconds

    @pytest.mark.parametrize(
        ("text", "size"), [("512MiB", 512 * 1024**2), ("1GB", 10**9), ("1.5KiB", 1536), ("7B", 7), ("0B", 0)]
    )
    def test_sizes(self, text: str, size: int) -> None:
        assert parse_bytes(text) == size
        assert parse_bytes(format_bytes(size)) == size

    @pytest.mark.parametrize("text", ["", "ms", "-5s", "1e3s", "5 s s", "inf", True, None, "٣s"])
    def test_what_is_not_a_duration(self, text: object) -> None:
        with pytest.raises(ValueError, match="20ms"):
            parse_duration_s(text)

    def test_fractions_of_a_byte(self) -> None:
        with pytest.raises(ValueError, match="whole number"):
            parse_bytes("0.3B")

    @pytest.mark.parametrize(
        ("text", "address"),
        [("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:0", ("::1", 0)), ("off", None)],
    )
    def test_addresses(self, text: str, address: tuple[str, int] | None) -> None:
        assert parse_http(text) == address
