"""What the deployment files promise: no root, nothing unhashed, replicas that can be scaled, limits that fit."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from load.peers import kafka_streams
from streamer.cli import command_of
from streamer.dev_broker.jars import KAFKA_VERSION
from streamer.settings.settings import Settings
from streamer.units import parse_bytes, parse_duration_s

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "streamer:local"}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def instructions(keyword: str, text: str = DOCKERFILE) -> list[str]:
    """The arguments of every `keyword` in a Dockerfile, continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return re.findall(rf"^{keyword} (.*)$", joined, re.MULTILINE)


class TestCompose:
    def test_who_is_there(self) -> None:
        assert set(SERVICES) == {"kafka", "topics", "streamer", "feeder", "tail"}
        assert set(OURS) == {"topics", "streamer", "feeder", "tail"}

    def test_one_version_of_kafka_everywhere(self) -> None:
        """What tests ran on is what people start and what the peer is compared on."""
        pom = (kafka_streams.FOLDER / "pom.xml").read_text("utf-8")
        versions = re.findall(r"<artifactId>kafka-streams</artifactId>\s*<version>(.*)</version>", pom)
        assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
        assert [kafka_streams.VERSION, *versions] == [KAFKA_VERSION] * 2

    def test_the_service_can_be_scaled(self) -> None:
        streamer = SERVICES["streamer"]
        assert not {"container_name", "ports", "hostname", "network_mode"} & streamer.keys()
        assert not {"STREAMER_SLOT", "KAFKA_GROUP_INSTANCE_ID"} & streamer["environment"].keys()
        assert "--slot" not in streamer["command"]
        assert not [name for name, service in SERVICES.items() if "container_name" in service]

    @pytest.mark.parametrize("name", sorted(OURS))
    def test_nothing_of_ours_has_a_privilege(self, name: str) -> None:
        service = OURS[name]
        user, group = service["user"].split(":")
        assert int(user) >= 10001
        assert int(group) >= 10001
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert not {"cap_add", "privileged", "volumes", "devices", "ports"} & service.keys()
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]

    def test_kafka_is_reached_from_the_host_and_from_the_network(self) -> None:
        kafka = SERVICES["kafka"]
        environment = kafka["environment"]
        advertised = dict(part.split("://") for part in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
        assert advertised == {"NETWORK": "kafka:19092", "HOST": "127.0.0.1:9092"}
        listening = dict(part.split("://") for part in environment["KAFKA_LISTENERS"].split(","))
        protocols = dict(part.split(":") for part in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
        assert listening.keys() == protocols.keys() == advertised.keys() | {"CONTROLLER"}
        assert kafka["ports"] == ["127.0.0.1:9092:9092"]  # not on the machine's other addresses
        for service in OURS.values():
            assert service["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == advertised["NETWORK"]

    def test_each_waits_for_what_it_needs(self) -> None:
        assert SERVICES["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
        for name in ("streamer", "feeder"):
            assert SERVICES[name]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
        assert "kafka-broker-api-versions.sh" in " ".join(SERVICES["kafka"]["healthcheck"]["test"])
        assert "/health/ready" in " ".join(SERVICES["streamer"]["healthcheck"]["test"])

    def test_limits_fit_the_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = self.settings_in("streamer", monkeypatch)
        grace_s = parse_duration_s(SERVICES["streamer"]["stop_grace_period"])
        assert grace_s > settings.drain_timeout
        room = parse_bytes(SERVICES["streamer"]["mem_limit"].replace("m", "MiB")) - settings.state_memory
        assert room >= parse_bytes("512MiB")

    @pytest.mark.parametrize("name", sorted(OURS))
    def test_the_environment_is_one_the_service_accepts(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.settings_in(name, monkeypatch).bootstrap == "kafka:19092"

    @pytest.mark.parametrize("name", sorted(OURS))
    def test_the_command_is_one_the_service_knows(self, name: str) -> None:
        arguments = list(OURS[name]["command"])
        command: Any = command_of(arguments.pop(0))
        while subcommands := getattr(command, "commands", None):
            command = subcommands[arguments.pop(0)]
        command.make_context(name, arguments)  # parses and checks, runs nothing

    def test_the_check_asks_the_port_the_image_opens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        http = self.settings_in("streamer", monkeypatch).http
        assert http is not None
        assert f"127.0.0.1:{http.port}/" in " ".join(SERVICES["streamer"]["healthcheck"]["test"])
        assert instructions("EXPOSE") == [str(http.port)]

    @staticmethod
    def settings_in(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
        """The settings a container of this service would load: the image's environment under its own."""
        for known in os.environ:
            if known.startswith(("STREAMER_", "KAFKA_")):
                monkeypatch.delenv(known)
        image = dict(re.findall(r"(\w+)=(\S+)", instructions("ENV")[-1]))
        for variable, value in {**image, **SERVICES[name]["environment"]}.items():
            if variable.startswith(("STREAMER_", "KAFKA_")):
                monkeypatch.setenv(variable, value)
        return Settings.load()


class TestDockerfile:
    def test_it_does_not_run_as_root(self) -> None:
        user, group = instructions("USER")[-1].split(":")
        assert int(user) >= 10001
        assert int(group) >= 10001
        assert DOCKERFILE.rindex("\nUSER ") < DOCKERFILE.rindex("\nENTRYPOINT ")

    def test_every_package_is_locked(self) -> None:
        installs = [step for run in instructions("RUN") for step in run.split("&&") if "pip install" in step]
        assert len(installs) == 3
        for step in installs:
            assert "--require-hashes" in step or "--no-deps --no-index" in step, step
        assert not re.search(r"apt-get|curl|wget|git clone", DOCKERFILE)

    def test_nothing_comes_from_an_address(self) -> None:
        assert instructions("ADD") == []
        assert not [source for source in instructions("COPY") if "://" in source]

    def test_bases_are_named_versions(self) -> None:
        bases = [base.split()[0] for base in instructions("FROM")]
        assert bases
        assert len(set(bases)) == 1
        assert re.fullmatch(r"python:3\.1[1-9]-slim-\w+", bases[0])

    def test_kernels_are_compiled_for_the_processor_they_will_run_on(self) -> None:
        (build,) = [run for run in instructions("RUN") if "import streamer.operators.rolling.kernels" in run]
        assert "python -I " in build  # or it is /src/streamer that gets compiled, and never used
        run_time = dict(re.findall(r"(NUMBA_\w+)=(\S+)", instructions("ENV")[-1]))
        assert dict(re.findall(r"(NUMBA_CPU_\w+)=(\S+)", build)) == {"NUMBA_CPU_NAME": run_time["NUMBA_CPU_NAME"]}
        (built_in,) = re.findall(r"NUMBA_CACHE_DIR=(\S+)", build)
        assert f"cp -R {built_in} {Path(run_time['NUMBA_CACHE_DIR']).parent}/" in instructions("ENTRYPOINT")[0]
        assert Path(built_in).name == Path(run_time["NUMBA_CACHE_DIR"]).name

    def test_signals_reach_the_service(self) -> None:
        (entry,) = instructions("ENTRYPOINT")
        assert entry.startswith("[")
        assert "exec streamer" in entry

    def test_the_context_holds_only_what_is_copied(self) -> None:
        ignore = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
        assert "*" in ignore
        let_in = {line[1:] for line in ignore if line.startswith("!")}
        copied = {
            source.removeprefix("./") for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]
        }
        assert let_in == copied
        assert [source for source in copied if not (ROOT / source).exists()] == []

    def test_the_reader_of_this_file_reads(self) -> None:
        assert instructions("RUN", "# RUN no\nRUN a \\\n    && b\nrun c\n") == ["a && b"]
