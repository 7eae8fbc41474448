"""No test may reach the network: any connection that is not to this machine raises. Tests compute in float32 on every machine."""
import os
import signal
import socket

import pytest

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MOTIONLAB_BF16", "0")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:          # started in the background of a script: tests of Ctrl-C need one
    signal.signal(signal.SIGINT, signal.default_int_handler)
_connect = socket.socket.connect


def _local_only(self, address):
    host = address[0] if isinstance(address, tuple) else "localhost"
    if host not in ("localhost", "127.0.0.1", "::1", ""):
        raise RuntimeError(f"a test tried to reach {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", _local_only)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny snapshots by name; each is built when a test of the module first asks for it."""
    from snapshots import SNAPSHOTS

    root, made = tmp_path_factory.mktemp("snapshots"), {}

    def build(name):
        if name not in made:
            made[name] = SNAPSHOTS[name](root / name)
        return made[name]

    return build
