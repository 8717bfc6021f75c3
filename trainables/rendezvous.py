"""Where PyTorch's rendezvous listens: on the address its workers are told, and on no other.

Before workers talk to each other they meet at a small server in the first of them, which PyTorch opens on every
interface and which asks nobody who he is; whoever reaches it in time can have workers connect to him. Here it listens
on the address that workers are given: loopback on one machine, the node's own in a cluster.
"""

from __future__ import annotations

import importlib
import socket
from typing import Any


def listen_where_named() -> None:
    """Have the process groups of this process do so; to be called before there are any. May be called again."""
    rendezvous: Any = importlib.import_module("torch.distributed.rendezvous")  # the package has a function of the name
    opened: Any = rendezvous.TCPStore
    if getattr(opened, "listens_where_named", False):
        return

    def store(host_name: str, port: int, *more: Any, is_master: bool = False, **options: Any) -> Any:
        if is_master and "master_listen_fd" not in options:
            family = socket.AF_INET6 if ":" in host_name else socket.AF_INET
            options["master_listen_fd"] = socket.create_server((host_name, port), family=family, backlog=2048).detach()
        return opened(host_name, port, *more, is_master=is_master, **options)

    store.listens_where_named = True  # type: ignore[attr-defined]
    rendezvous.TCPStore = store
