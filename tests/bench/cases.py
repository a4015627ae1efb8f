"""What is measured: which calls go to which servers together."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from iin_api.v1 import interpretation_pb2 as pb

from tests.bench.load import Calls
from tests.bench.requests import INFER, Requests
from tests.bench.servers import BARE, OURS, PEERS, TWO

__all__ = ["ALONE", "BESIDE", "PARTS", "RPCS", "STREAM_SAMPLES", "Case", "make_cases"]

RPCS = ("Interpret", "Edit", "Sample")
PARTS = ("rpcs", "mixed", "starvation", "peers", "replicas")
SERVICE = pb.DESCRIPTOR.services_by_name["InterpretationService"].full_name
MIXED = {"Interpret": 16, "Edit": 8, "Sample": 8}  # callers
SHARED = {"Interpret": 64, "Sample": 16}  # callers of one replica, then of two
STARVED_CALLERS, STREAM_SAMPLES = 8, 1000
ALONE, BESIDE = "Interpret alone", "Interpret beside the stream"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured in turn, server by server, in every round."""

    part: str
    """One of PARTS, or "open"."""
    loads: dict[str, tuple[tuple[Calls, ...], ...]]
    """For each server the loads that follow each other, of calls that are made together."""


def make_cases(given: argparse.Namespace, requests: Requests, servers: Sequence[str]) -> list[Case]:
    """The cases of the parts that `given` names, for the `servers` that run."""
    full = [name for name in servers if name in (OURS, BARE)]
    cases = []
    if "rpcs" in given.parts:
        cases += [
            Case(
                part="rpcs",
                loads={name: ((_rpc(requests, rpc, callers=callers),),) for name in full},
            )
            for rpc in given.rpcs
            for callers in given.callers
        ]
    if "mixed" in given.parts:
        together = tuple(_rpc(requests, rpc, callers=callers) for rpc, callers in MIXED.items())
        cases.append(Case(part="mixed", loads=dict.fromkeys(full, (together,))))
    if "starvation" in given.parts:
        alone, beside = (_rpc(requests, "Interpret", name=name, callers=STARVED_CALLERS) for name in (ALONE, BESIDE))
        stream = Calls(
            name=f"messages of Sample({STREAM_SAMPLES})",
            method=f"/{SERVICE}/Sample",
            requests=requests.serialised("stream"),
            endless=True,
        )
        cases.append(Case(part="starvation", loads=dict.fromkeys(full, ((alone,), (beside, stream)))))
    if "peers" in given.parts:
        cases += [
            Case(
                part="peers",
                loads={name: ((_raw(requests, name, callers=callers),),) for name in servers if name != TWO},
            )
            for callers in given.callers
        ]
    if "replicas" in given.parts:
        cases += [
            Case(part="replicas", loads=dict.fromkeys((OURS, TWO), ((_rpc(requests, rpc, callers=callers),),)))
            for rpc, callers in SHARED.items()
        ]
    cases += [
        Case(part="open", loads={name: ((_raw(requests, name, rate=rate),),) for name in servers if name != TWO})
        for rate in given.rates
    ]
    return cases


def _rpc(requests: Requests, rpc: str, *, callers: int, name: str = "") -> Calls:
    return Calls(
        name=name or rpc,
        method=f"/{SERVICE}/{rpc}",
        streams=rpc == "Sample",
        requests=requests.serialised(rpc.lower()),
        callers=callers,
    )


def _raw(requests: Requests, server: str, *, callers: int = 1, rate: float = 0.0) -> Calls:
    """Interpret with float32 images, in the server's own protocol."""
    peer = server in PEERS
    return Calls(
        name="Interpret, raw",
        method=INFER if peer else f"/{SERVICE}/Interpret",
        requests=requests.serialised("inference" if peer else "raw"),
        callers=callers,
        rate=rate,
    )
