"""The operating system's side of a broker: ports, the Java child, the guard that ends it with its parent."""

import random
import socket
import subprocess
from pathlib import Path

# Below the range from which systems take ports for outgoing connections: a client that keeps trying a port of
# that range while the broker restarts can connect to itself and so take the broker's port away.
FREE_PORTS = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """True if a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """True if something accepts a connection on 127.0.0.1:`port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports nobody listens on; random, so that two test runs at once do not meet."""
    found: list[int] = []
    for port in random.sample(FREE_PORTS, 1000):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {FREE_PORTS.start} and {FREE_PORTS.stop}")


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, "(empty)" if there is nothing to show."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


class Guard:
    """Ends a process with SIGKILL when this Python process dies, however it dies.

    A shell waits on a pipe that only we hold: the kernel closes it with us. The system call for the purpose
    (PR_SET_PDEATHSIG) fires when the starting *thread* ends: one restarted from a test's thread would die.
    """

    def __init__(self, pid: int) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$1" 2>/dev/null', "broker-guard", str(pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def release(self) -> None:
        """Let the process go on without us, or be stopped in another way."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
