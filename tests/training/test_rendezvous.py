"""The rendezvous of a training's processes: where it listens, and that a group forms through it."""

from __future__ import annotations

import subprocess
import sys

import psutil

from coldtune.training.rendezvous import serve_store

MEMBER = """
import sys, torch, torch.distributed as dist
from coldtune.training.rendezvous import join_group
rank, port = int(sys.argv[1]), int(sys.argv[2])
join_group("127.0.0.1", port, rank, 2, "gloo", 120)
value = torch.tensor([float(rank + 1)])
dist.all_reduce(value)
import psutil
print(value.item(), *{c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"}, flush=True)
dist.destroy_process_group()
"""


def listening() -> set[tuple[str, int]]:
    connections = psutil.Process().net_connections("tcp")
    return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}


def test_serve_store_listens_at_its_address_only_and_forms_a_group() -> None:
    before = listening()
    address, port = serve_store("127.0.0.1")
    assert listening() - before == {(address, port)} == {("127.0.0.1", port)}
    command = [sys.executable, "-c", MEMBER]
    members = [
        subprocess.Popen([*command, str(rank), str(port)], stdout=subprocess.PIPE, text=True) for rank in range(2)
    ]
    answers = [member.communicate(timeout=300)[0].split() for member in members]
    assert answers == [["3.0", "127.0.0.1"]] * 2
