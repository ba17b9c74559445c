"""How the processes of a training find each other, without a socket that listens on every interface of a machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_served: list[TCPStore] = []  # keeps the server of this process alive


def serve_store(address: str) -> tuple[str, int]:
    """Start the server through which the processes of a group find each other, and return its address and port.

    torch's own rendezvous listens on every interface, and asks nobody for a password.

    Args:
        address: The IP address at which this machine serves. On 127.0.0.1, no other machine can reach it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family)
    port = int(listener.getsockname()[1])
    _served[:] = [TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())]
    return address, port


def join_group(address: str, port: int, rank: int, size: int, backend: str, timeout_s: float) -> None:
    """Initialise torch's default process group of `size` processes, whose store is served at `address`.

    If the address is the machine's loopback, the connections between the processes use it too.
    """
    if ipaddress.ip_address(address).is_loopback:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, _loopback_interface())
    timeout = timedelta(seconds=timeout_s)
    store = TCPStore(address, port, size, is_master=False, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _loopback_interface() -> str:
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
