"""`DevBroker`: one Kafka node with its own data folder; start, stop, kill and restart it, the data stays."""

import fcntl
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamer.dev_broker.config import LOG4J, SASL_MECHANISM, Detour, Ports, ScramUser, server_properties
from streamer.dev_broker.errors import BrokerError
from streamer.dev_broker.jars import kafka_jars
from streamer.dev_broker.java import Java, find_java
from streamer.dev_broker.process import Guard, answers, free_ports, is_free, tail

START_TIMEOUT_S = 90  # 3 to 6 s on two idle cores
STOP_TIMEOUT_S = 30  # 0.5 s; the first stop also writes the class archive (4 s)

# A heap for a laptop, and one thread to collect it: Kafka's own choice, G1, stops the broker until several threads have been
# given a processor, which took 100 ms and more where clients kept both busy.
JAVA_OPTIONS = ("-Xms128m", "-Xmx1g", "-XX:+UseSerialGC", "-Djava.awt.headless=true")


def silent(_: str) -> None:
    """Tell nobody."""


class DevBroker:
    """A single Kafka node on 127.0.0.1.

    Args:
        data: folder for its data, settings and log, kept; None for a temporary one that `close` removes.
        port: of the plain listener; None for a free one, kept over restarts.
        sasl: also open a SASL_PLAINTEXT listener; its user is created only when `data` is new.
        detour: also open a plain listener for a proxy in front of it, see `detour`.
        settings: lines of server.properties that win over the development defaults.
        java_options: appended to the JVM's options, so that `-Xmx512m` here wins.
        tell: gets a line when something takes long (the download).
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        port: int | None = None,
        sasl: bool = False,
        detour: bool = False,
        settings: Mapping[str, str] | None = None,
        java_options: Sequence[str] = (),
        tell: Callable[[str], None] = silent,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="streamer-kafka-") if data is None else None
        self.data = Path(self._temporary.name if self._temporary else data or "").absolute()
        plain, controller, scram, inner, outer = free_ports(5)
        self._ports = Ports(port or plain, controller, scram if sasl else None, Detour(outer, inner) if detour else None)
        self._settings = dict(settings or {})
        self._java_options = tuple(java_options)
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._archive: tuple[Path, Path] | None = None
        self.user = ScramUser()

    @property
    def bootstrap(self) -> str:
        """`bootstrap.servers` of the plain listener."""
        return f"127.0.0.1:{self._ports.plain}"

    @property
    def sasl_bootstrap(self) -> str:
        """`bootstrap.servers` of the SASL listener; `BrokerError` if it is off."""
        if self._ports.sasl is None:
            raise BrokerError("this broker has no SASL listener: create it with DevBroker(sasl=True)")
        return f"127.0.0.1:{self._ports.sasl}"

    @property
    def detour(self) -> Detour:
        """Ports of a proxy and of the listener behind it; `BrokerError` if that is off."""
        if self._ports.detour is None:
            raise BrokerError("this broker has no listener behind a proxy: create it with DevBroker(detour=True)")
        return self._ports.detour

    @property
    def sasl_config(self) -> dict[str, str]:
        """The librdkafka keys with which a client connects to the SASL listener."""
        return {
            "bootstrap.servers": self.sasl_bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": SASL_MECHANISM,
            "sasl.username": self.user.name,
            "sasl.password": self.user.password,
        }

    @property
    def log(self) -> Path:
        """The broker's own log, warnings and errors only, appended to over restarts."""
        return self.data / "broker.log"

    @property
    def pid(self) -> int | None:
        """Process id of the Java child, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """True while the process that this object started is alive."""
        return self.pid is not None

    def start(self, *, detached: bool = False) -> None:
        """Start and wait until it answers; nothing happens if it runs.

        A `detached` broker outlives this process; else it dies with it. Raises `BrokerUnavailableError`
        without Java or jars, `BrokerError` with the end of the log if it does not come up.
        """
        if self.running:
            return
        self._forget()
        java = find_java()
        jars = kafka_jars(java, self._tell)
        if not is_free(self._ports.plain):
            raise BrokerError(f"port {self._ports.plain} is taken on 127.0.0.1: choose another, or stop what uses it")
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "lock").open("a") as lock:
            self._claim(lock)
            self._prepare(java, jars)
            self._spawn(java, jars, lock, detached=detached)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order (SIGTERM, after 30 s SIGKILL) and keep the data."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._keep_archive()
        self._forget()

    def kill(self) -> None:
        """End it at once with SIGKILL, as a crash would, and keep the data."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._forget()

    def restart(self) -> None:
        """Stop and start on the same ports and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the data folder if it is a temporary one."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim(self, lock: IO[str]) -> None:
        """Lock the data folder; the Java child inherits the lock, which so lasts as long as the child."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = Path(lock.name).read_text()
            raise BrokerError(
                f"another broker (process {owner or 'starting'}) runs on {self.data}: end it, or choose another folder"
            ) from None

    def _prepare(self, java: Java, jars: Path) -> None:
        (self.data / "log4j2.properties").write_text(LOG4J)
        if not self._kafka_folder.exists():
            self._format(java, jars)
        text = server_properties(self._ports, self._kafka_folder, self._settings)
        (self.data / "server.properties").write_text(text)

    @property
    def _kafka_folder(self) -> Path:
        return self.data / "kafka"

    def _format(self, java: Java, jars: Path) -> None:
        """Format beside the real place and rename, so that a cut format is never started on."""
        with tempfile.TemporaryDirectory(prefix="formatting-", dir=self.data) as name:
            fresh = Path(name, "kafka")
            properties = Path(name, "format.properties")
            properties.write_text(server_properties(self._ports, fresh, self._settings))
            cluster_id = "S" + secrets.token_urlsafe(16)[1:]  # 22 characters, must not start with a dash
            tool = [
                "kafka.tools.StorageTool",
                "format",
                "--standalone",
                "-t",
                cluster_id,
                "-c",
                str(properties),
            ]
            if self._ports.sasl is not None:
                account = f"name={self.user.name},password={self.user.password}"
                tool += ["--add-scram", f"{SASL_MECHANISM}=[{account}]"]
            done = subprocess.run(
                [*self._java(java, jars), "-XX:TieredStopAtLevel=1", *tool],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise BrokerError(f"Kafka could not format {self.data}:\n{done.stdout.strip()}")
            fresh.rename(self._kafka_folder)

    def _java(self, java: Java, jars: Path) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}"
        return [str(java.executable), log4j, "-cp", f"{jars}/*"]

    def _spawn(self, java: Java, jars: Path, lock: IO[str], *, detached: bool) -> None:
        options = [*JAVA_OPTIONS, *self._java_options, *self._class_archive(java, jars, detached=detached)]
        launcher, *rest = self._java(java, jars)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [launcher, *options, *rest, "kafka.Kafka", str(self.data / "server.properties")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=(lock.fileno(),),
            )  # fmt: skip
        Path(lock.name).write_text(str(self._process.pid))  # for the message of `_claim`
        self._guard = None if detached else Guard(self._process.pid)

    def _class_archive(self, java: Java, jars: Path, *, detached: bool) -> list[str]:
        """Options for Java's class archive: measured start 6.2 s without, 2.8 s with it.

        The first broker that is stopped in order writes it; the JVM ignores one that does not fit.
        """
        archive = jars / f"classes-{java.version}.jsa"
        if archive.exists():
            return [f"-XX:SharedArchiveFile={archive}", "-Xlog:disable"]
        if detached:  # it is stopped by another process, which could not put the archive in its place
            return []
        written = archive.with_suffix(f".{os.getpid()}")
        self._archive = (written, archive)
        return [f"-XX:ArchiveClassesAtExit={written}", "-Xlog:disable"]

    def _keep_archive(self) -> None:
        if self._archive is not None and self._archive[0].exists():
            self._archive[0].replace(self._archive[1])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (answers(self._ports.plain) and self._serves()):
            if self._process is None or self._process.poll() is not None:
                raise BrokerError(f"Kafka ended while starting; the end of {self.log}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"Kafka does not answer on {self.bootstrap} after {START_TIMEOUT_S} s; "
                    f"the end of {self.log}:\n{tail(self.log)}"
                )
            time.sleep(0.05)

    def _serves(self) -> bool:
        """True once the node has registered with its own controller and appears in the metadata."""
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.release()
        self._process = self._guard = self._archive = None
