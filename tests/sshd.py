"""A real OpenSSH server on loopback, run by whoever runs the tests, and the ssh config that reaches it."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
NEEDS = "no sshd here: sh tests/setup_devices.sh, as root on Debian"


@dataclass
class Server:
    """An sshd with keys of its own; every login runs one command, which has SSH_ORIGINAL_COMMAND.

    Attributes:
        config: ssh config with the hosts.
        port: On 127.0.0.1.
        key: The client's.
        known_hosts: Which has the server's key.
        process: Of the server.
    """

    config: Path
    port: int
    key: Path
    known_hosts: Path
    process: subprocess.Popen[bytes]

    def host(self, name: str, **options: object) -> str:
        """Add a Host to the ssh config."""
        settings = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "IdentityFile": self.key,
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "ask",
        } | options
        lines = [f"Host {name}", *(f"  {key} {value}" for key, value in settings.items())]
        self.config.write_text(self.config.read_text() + "\n".join(lines) + "\n")
        return name


@contextlib.contextmanager
def serve(etc: Path, login: str) -> Iterator[Server]:
    """Start a server whose logins run a shell script; its files are in `etc`."""
    etc.mkdir()
    public = make_key(etc / "host")
    (etc / "authorized").write_text(make_key(etc / "key"))
    (etc / "config").touch()
    port = free_port()
    (etc / "known").write_text(f"[127.0.0.1]:{port} {public}")
    (etc / "login").write_text(login)
    options = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": etc / "host",
        "AuthorizedKeysFile": etc / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "ForceCommand": f"/bin/sh '{etc / 'login'}'",
    }
    (etc / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (etc / "log").open("wb") as log:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(etc / "sshd_config")], stderr=log)
    try:
        wait_for_port(port)
        yield Server(etc / "config", port, etc / "key", etc / "known", process)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> str:
    """Make a key pair, and return the public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_name(path.name + ".pub").read_text()


def wait_for_port(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")


class Proxy:
    """Passes connections on to a port; cuts them after so many bytes from the client, or slows them down."""

    def __init__(self, port: int, cut_after: int | None = None, pause_s: float = 0.0) -> None:
        self._to, self._left, self._pause_s = port, cut_after, pause_s
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if counted and self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        source.shutdown(socket.SHUT_RDWR)
                        break
                sink.sendall(data)
                time.sleep(self._pause_s if counted else 0)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)  # what was passed on still arrives, however slow the other end is
            while source.recv(1 << 14):
                pass  # closing with bytes unread would reset the connection, and lose that

    def close(self) -> None:
        self._server.close()


@contextlib.contextmanager
def proxied(port: int, **options: Any) -> Iterator[Proxy]:
    proxy = Proxy(port, **options)
    try:
        yield proxy
    finally:
        proxy.close()
