"""Triton Inference Server as a peer: PyTriton with one callable for both graphs and Triton's dynamic batching.

Runs in the virtual environment that `peers` makes for it, without anything of ours. The batcher adds no wait of its
own: a batch is what waits when the callable is free.

    python -m tests.bench.triton_server ENCODER TRANSFORM     prints "ready: HOST:PORT"; SIGINT or SIGTERM stops it
"""

import contextlib
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from tests.bench.peer_graphs import MAX_BATCH, MODEL, OUTPUTS, Graphs, free_ports


def main(encoder: str, transform: str) -> None:
    """Serve until a signal."""
    graphs = Graphs(encoder, transform)

    @batch
    def interpret(image: np.ndarray) -> dict[str, np.ndarray]:
        return graphs(image)

    host, (grpc_port, http_port) = "127.0.0.1", free_ports(2)
    config = TritonConfig(
        grpc_address=host, grpc_port=grpc_port, http_address=host, http_port=http_port, allow_metrics=False
    )
    with tempfile.TemporaryDirectory(prefix="bench-triton-") as folder:
        triton = Triton(config=config, workspace=Path(folder) / "workspace")
        triton.bind(
            model_name=MODEL,
            infer_func=interpret,
            inputs=[Tensor(name="image", dtype=np.float32, shape=graphs.image_shape)],
            outputs=[
                Tensor(name=name, dtype=np.float32, shape=shape)
                for name, shape in zip(OUTPUTS, graphs.output_shapes, strict=True)
            ],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        try:
            with contextlib.suppress(KeyboardInterrupt):
                triton.run()
                print(f"ready: {host}:{grpc_port}", flush=True)
                signal.pause()
        finally:
            triton.stop()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.bench.triton_server ENCODER TRANSFORM")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    main(*sys.argv[1:])
