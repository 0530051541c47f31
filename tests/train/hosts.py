"""Machines in one: network namespaces with names and addresses of their own, behind one bridge. Linux, with the rights to make them."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOL = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


@dataclass(frozen=True)
class Host:
    """One of them."""

    name: str
    address: str
    namespace: str
    hub: str
    port: str
    """Its plug in the hub."""
    names: Path
    """A file like /etc/hosts, of all hosts."""

    def start(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """A process on this host, which knows the host's name."""
        named = ["sh", "-c", 'hostname "$0" && mount --bind "$1" /etc/hosts && shift && exec "$@"', self.name, str(self.names), *command]
        line = [TOOL, "netns", "exec", self.namespace, "unshare", "--uts", "--mount", *named]
        own = environment | {"GLOO_SOCKET_IFNAME": "eth0"}
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own, start_new_session=True)

    def cut(self) -> None:
        """Pull the plug: nobody hears of it."""
        _run("netns", "exec", self.hub, TOOL, "link", "set", self.port, "down")


def missing() -> str:
    """Why there can be no such hosts here; "" when there can."""
    if not TOOL or shutil.which("unshare") is None:
        return "needs iproute2 and unshare"
    name = f"kitae{os.getpid()}"
    done = subprocess.run([TOOL, "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"network namespaces are not permitted: {done.stderr.strip()}"
    _run("netns", "del", name)
    return ""


@contextlib.contextmanager
def hosts(count: int, folder: Path) -> Iterator[list[Host]]:
    """`count` hosts, which know each other as host0, host1, ...; their names are written down in `folder`."""
    own = f"kitae{os.getpid()}"
    hub = f"{own}hub"
    names = folder / "hosts"
    found = [Host(f"host{i}", f"10.77.0.{i + 1}", f"{own}n{i}", hub, f"port{i}", names) for i in range(count)]
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in found))
    made: list[str] = []
    try:
        for name in (hub, *(host.namespace for host in found)):
            _run("netns", "add", name)
            made.append(name)
            _run("-n", name, "link", "set", "lo", "up")
        _run("-n", hub, "link", "add", "bridge0", "type", "bridge")
        _run("-n", hub, "link", "set", "bridge0", "up")
        for host in found:
            _run("-n", hub, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _run("-n", hub, "link", "set", host.port, "master", "bridge0", "up")
            _run("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _run("-n", host.namespace, "link", "set", "eth0", "up")
        yield found
    finally:
        for name in made:
            _run("netns", "del", name)


def _run(*arguments: str) -> None:
    subprocess.run([TOOL, *arguments], check=True, capture_output=True, text=True)
