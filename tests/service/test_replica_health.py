"""A replica whose graphs no longer give what the bundle says is given up; one that met a bad batch is not."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from iin_bundle import BundleError, check_golden, read_bundle
from iin_service.engine import Engine
from iin_service.graphs import Compute
from iin_service.items import Given, Trace
from iin_service.recording import Silent
from iin_service.replica import Replica
from iin_service.sessions import Sessions


class Noting(Silent):
    """A recorder as `Metrics` is, without Ray."""

    doubtful = False

    def batch_failed(self):
        self.doubtful = True


@pytest.fixture
def broken():
    return SimpleNamespace(now=False)


@pytest.fixture
def replica(digits_bundle, broken):
    """A replica without Ray, whose GPU is lost while `broken.now`."""
    bundle, made = read_bundle(digits_bundle), Replica.__new__(Replica)
    sessions = Sessions(bundle, threads=1, gpu=False)

    def run(role, items):
        if broken.now:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")
        return sessions.run(role, items)

    made._metrics = Noting()
    made._verify = lambda: check_golden(bundle, run)
    made.engine = Engine(bundle.manifest, lambda role: lambda items: run(role, items), Compute(recorder=made._metrics))
    return made


def interpret(replica):
    items = np.zeros((1, replica.engine.layout.size), np.float32)
    return asyncio.run(replica.engine.interpret([Given("latent", items, "inputs")], Trace()))


def test_a_replica_that_lost_its_gpu_is_unhealthy_as_long_as_it_is(replica, broken):
    interpret(replica)
    asyncio.run(replica.check_health())
    broken.now = True
    asyncio.run(replica.check_health())  # nobody has called it since
    with pytest.raises(RuntimeError, match="CUDA"):
        interpret(replica)
    for _ in range(2):
        with pytest.raises((RuntimeError, BundleError), match="CUDA"):
            asyncio.run(replica.check_health())


def test_a_failure_that_does_not_come_again_is_forgiven(replica, broken):
    broken.now = True
    with pytest.raises(RuntimeError, match="CUDA"):
        interpret(replica)
    broken.now = False
    for _ in range(2):
        asyncio.run(replica.check_health())
    assert not replica._metrics.doubtful
