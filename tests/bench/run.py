"""Benchmark: throughput, latency and memory of `iin-serve` beside a bare grpc.aio server with the same graphs.

    .venv/bin/python -m tests.bench.run BUNDLE                           about 5 minutes
    .venv/bin/python -m tests.bench.run BUNDLE --seconds 0.5 --rounds 1  to try the harness
    .venv/bin/python -m tests.bench.run BUNDLE --rpcs Interpret --callers 64 --rounds 7

Both servers (`servers`, `bare_server`) run from beginning to end, and every combination of RPC and callers is
measured in rounds, ours and the bare server's in turn, so that a machine that gets slower or busier does not
favour either. One process sends the load (`load`): each caller sends its next call when the one before was
answered. A call is one image for Interpret, a target and a source for Edit (digit replaced, PNG out) and a stream
of `--samples` images for Sample. Before anything is measured the answers of both servers are compared. What is
printed (`report`) are medians over the rounds; read the ratios, which depend least on the machine, and where
others use it at the same time the CPU time that the serving process takes for a call.

Exit code: 0 measured, 1 a call failed, the answers differ or a server did not start, 130 interrupted.
"""

import argparse
import io
import json
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1 import interpretation_pb2_grpc as pb_grpc
from iin_bundle import Bundle, BundleError, read_bundle
from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.bench import load, report
from tests.bench.servers import BARE, OURS, Server

RPCS = ("Interpret", "Edit", "Sample")
CALLERS = (1, 16, 64)
SERVICE = pb.DESCRIPTOR.services_by_name["InterpretationService"].full_name
IMAGES = 16  # different images in the load
VALUE_TOLERANCE, GREY_LEVELS = 1e-3, 1  # how far the answers of the servers may be apart


@dataclass(frozen=True)
class Requests:
    """The calls that are made, by RPC."""

    interpret: tuple[pb.InterpretRequest, ...]
    edit: tuple[pb.EditRequest, ...]
    sample: tuple[pb.SampleRequest, ...]

    def serialised(self, rpc: str) -> tuple[bytes, ...]:
        """The requests of one RPC."""
        return tuple(request.SerializeToString() for request in getattr(self, rpc.lower()))


def make_requests(bundle: Bundle, samples: int) -> Requests:
    """Requests with the bundle's golden images."""
    image, layout = bundle.manifest.image, bundle.manifest.layout
    golden = bundle.golden[f"encoder/{bundle.manifest.graphs['encoder'].inputs[0].name}"][:IMAGES]
    scaled = (golden - image.minimum) * (255 / (image.maximum - image.minimum))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    inputs = [pb.Input(encoded_image=_png(one)) for one in pixels]
    sources = inputs[1:] + inputs[:1]
    factor = "digit" if "digit" in layout else layout.names[0]
    return Requests(
        interpret=tuple(pb.InterpretRequest(inputs=[one]) for one in inputs),
        edit=tuple(
            pb.EditRequest(
                targets=[target],
                edits=[pb.EditOperation(factor=factor, replace=pb.Replace(source=source))],
                format=pb.IMAGE_FORMAT_PNG,
            )
            for target, source in zip(inputs, sources, strict=True)
        ),
        sample=tuple(
            pb.SampleRequest(count=samples, seed=seed, format=pb.IMAGE_FORMAT_PNG) for seed in range(len(inputs))
        ),
    )


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)).save(file, "PNG")
    return file.getvalue()


def compare(ours: Server, bare: Server, requests: Requests) -> str:
    """Check that both servers give the same answers; returns how far they are apart.

    Raises:
        RuntimeError: where they are further apart than the tolerances.

    """
    values, levels, counts = 0.0, 0, []
    with grpc.insecure_channel(ours.address) as one, grpc.insecure_channel(bare.address) as other:
        stubs = [pb_grpc.InterpretationServiceStub(channel) for channel in (one, other)]
        for request in requests.interpret:
            found, expected = (_numbers(stub.Interpret(request)) for stub in stubs)
            values = max(values, float(np.abs(found - expected).max()))
        for request in requests.edit:
            found, expected = (_pixels(stub.Edit(request).images.encoded[0]) for stub in stubs)
            levels = max(levels, int(np.abs(found - expected).max()))
        for stub in stubs:
            parts = list(stub.Sample(requests.sample[0]))
            counts.append([_pixels(file).shape for part in parts for file in part.images.encoded])
    wanted = requests.sample[0].count
    if not values <= VALUE_TOLERANCE or levels > GREY_LEVELS or counts[0] != counts[1] or len(counts[0]) != wanted:
        raise RuntimeError(
            f"answers: expected at most {VALUE_TOLERANCE:g} and {GREY_LEVELS} grey levels between the servers and "
            f"{wanted} samples of each, got {values:g}, {levels} and {[len(shapes) for shapes in counts]}"
        )
    return f"values within {values:.1g}, edited images within {levels} grey levels"


def _numbers(response: pb.InterpretResponse) -> np.ndarray:
    tensors = [np.frombuffer(tensor.data, "<f4") for tensor in (response.latents, response.factors)]
    return np.concatenate([*tensors, response.log_likelihoods, response.log_likelihood_quantiles])


def _pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).astype(np.int16)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="bundle directory; its model needs a decoder")
    parser.add_argument("--rpcs", nargs="+", choices=RPCS, default=RPCS, help="what to measure (default: all)")
    parser.add_argument("--callers", nargs="+", type=int, default=CALLERS, help="callers at once (default: 1 16 64)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of a round at least (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (default: 3)")
    parser.add_argument("--samples", type=int, default=32, help="images of a Sample call (default: 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE as well")
    given = parser.parse_args()
    if given.seconds <= 0 or min(given.rounds, given.samples, *given.callers) < 1:
        parser.error("--seconds, --rounds, --samples, --callers: expected positive numbers")
    return given


def measure(given: argparse.Namespace, servers: list[Server], requests: Requests) -> list[report.Cell]:
    """Every combination of RPC and callers, in rounds; progress is shown on standard error."""
    cells: list[report.Cell] = []
    progress = Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=Console(stderr=True),
    )
    worker = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), load.start_worker)
    with worker, progress:
        task = progress.add_task("", total=len(given.rpcs) * len(given.callers) * given.rounds * len(servers))
        for rpc in given.rpcs:
            for callers in given.callers:
                rounds: list[dict[str, load.Result]] = []
                for _ in range(given.rounds):
                    rounds.append({})
                    for server in servers:
                        progress.update(task, description=f"{rpc}, {callers} callers, {server.name}")
                        job = load.Load(
                            address=server.address,
                            method=f"/{SERVICE}/{rpc}",
                            streams=rpc == "Sample",
                            requests=requests.serialised(rpc),
                            callers=callers,
                            seconds=given.seconds,
                            pid=server.serving().pid,
                        )
                        rounds[-1][server.name] = worker.submit(load.measure, job).result()
                        progress.advance(task)
                cells.append(report.Cell(rpc=rpc, callers=callers, rounds=rounds))
    return cells


def main() -> int:
    given = arguments()
    about = report.machine()
    try:
        bundle = read_bundle(given.bundle)
        if "decoder" not in bundle.manifest.graphs:
            raise RuntimeError(f"{given.bundle}: expected a bundle with a decoder, which Edit and Sample need")
        requests = make_requests(bundle, given.samples)
        with ExitStack() as stack:
            servers = []
            for name in (OURS, BARE):
                print(f"starting {name} ...", file=sys.stderr, flush=True)
                servers.append(stack.enter_context(Server(name, given.bundle)))
            about["answers"] = compare(*servers, requests)
            about["nice"] = {server.name: server.serving().nice() for server in servers}
            cells = measure(given, servers, requests)
            memory = {server.name: server.memory() for server in servers}
            print("stopping ...", file=sys.stderr, flush=True)
    except (BundleError, RuntimeError, grpc.RpcError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report.show(cells, memory, about, given.bundle)
    if given.json is not None:
        results = report.as_json(cells, memory, about, given.bundle)
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    errors = [text for cell in cells for text in cell.errors]
    for text in errors:
        print(f"bench: {text}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
