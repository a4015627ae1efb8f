"""Ports of a private cluster: free, different, and none that the system hands out by itself."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
from iin_service import environment
from iin_service.environment import free_ports, private_cluster

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_the_system_gives_no_port_away_meanwhile(tmp_path):
    lowest = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
    settings = private_cluster(tmp_path, iter(free_ports(4)))
    ports = [int(value) for name, value in settings.items() if name.endswith("_PORT")]
    assert len(ports) == 8
    assert max(ports) < lowest
    assert not any(10_002 <= port <= 19_999 for port in ports), "Ray's workers listen there"


def test_ports_are_different_and_free(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(environment, "PORTS", range(port, port + 20))
        drawn = free_ports(10)
        assert len(set(drawn)) == 10
        assert port not in drawn
        with pytest.raises(OSError, match=rf"expected 20 free ports between {port} and {port + 19}, found \d+"):
            free_ports(20)
