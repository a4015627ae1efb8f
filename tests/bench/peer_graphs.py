"""What the peers run: encoder, then transform, with one onnxruntime thread, as everywhere in this benchmark."""

import socket

import numpy as np
import onnxruntime as ort

__all__ = ["MAX_BATCH", "MODEL", "OUTPUTS", "Graphs", "free_ports"]

MODEL, OUTPUTS = "interpret", ("latent", "factors", "log_det")
MAX_BATCH = 64


class Graphs:
    """Both graphs of a bundle in a row."""

    def __init__(self, encoder: str, transform: str) -> None:
        """`encoder` and `transform` are ONNX files."""
        self._encoder, self._transform = (_session(path) for path in (encoder, transform))
        self._image, self._latent = (one.get_inputs()[0].name for one in (self._encoder, self._transform))
        self.image_shape: tuple[int, ...] = tuple(self._encoder.get_inputs()[0].shape[1:])
        """`(C, H, W)`."""
        first = (self._encoder.get_outputs()[0], self._transform.get_outputs()[0])
        self.output_shapes: tuple[tuple[int, ...], ...] = (*(tuple(one.shape[1:]) for one in first), (1,))
        """Shape of one row of each of OUTPUTS."""

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """OUTPUTS for images `(N, C, H, W)`."""
        (latents,) = self._encoder.run(None, {self._image: images})
        factors, log_dets = self._transform.run(None, {self._latent: latents})
        return dict(zip(OUTPUTS, (latents, factors, log_dets[:, None]), strict=True))


def _session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
