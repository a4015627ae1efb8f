"""The calls of the benchmark as messages, and the check that all servers answer them alike."""

import io
from dataclasses import dataclass

import grpc
import numpy as np
from iin_api.inference import grpc_service_pb2 as v2
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1 import interpretation_pb2_grpc as pb_grpc
from iin_bundle import Bundle
from PIL import Image

__all__ = [
    "INFER",
    "OTHER_EXPORT",
    "SAME_GRAPHS",
    "Requests",
    "Tolerance",
    "compare_peer",
    "compare_servers",
    "make_requests",
]

INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL, OUTPUTS = "interpret", ("latent", "factors", "log_det")  # as in peer_graphs, which needs their onnxruntime
IMAGES = 16  # different images in the load


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far the answers of two servers may be apart."""

    values: float
    """Of latents, factors, likelihoods and quantiles."""
    grey_levels: int
    """Of edited images."""


SAME_GRAPHS = Tolerance(values=1e-3, grey_levels=1)
OTHER_EXPORT = Tolerance(values=1.0, grey_levels=64)
"""For T in int8 beside float32: catches another model, not a bad export, which the figures of its card tell."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The calls that are made; every tuple has one for each image."""

    interpret: tuple[pb.InterpretRequest, ...]
    """A PNG file each."""
    raw: tuple[pb.InterpretRequest, ...]
    """The same calls with the image as float32 numbers."""
    inference: tuple[v2.ModelInferRequest, ...]
    """Those for a peer: a ModelInferRequest with the same numbers."""
    edit: tuple[pb.EditRequest, ...]
    """Target and source as PNG files, the digit replaced, PNG out."""
    sample: tuple[pb.SampleRequest, ...]
    """A few samples as PNG files."""
    stream: tuple[pb.SampleRequest, ...]
    """Many samples as PNG files."""

    def serialised(self, kind: str) -> tuple[bytes, ...]:
        """The requests of one kind, which is a field's name."""
        return tuple(request.SerializeToString() for request in getattr(self, kind))


def make_requests(bundle: Bundle, *, samples: int, stream_samples: int) -> Requests:
    """Requests with the bundle's golden images."""
    image, layout = bundle.manifest.image, bundle.manifest.layout
    golden = bundle.golden[f"encoder/{bundle.manifest.graphs['encoder'].inputs[0].name}"][:IMAGES]
    scaled = (golden - image.minimum) * (255 / (image.maximum - image.minimum))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    files = [pb.Input(encoded_image=_png(one)) for one in pixels]
    sources = files[1:] + files[:1]
    arrays = [one.astype("<f4").tobytes() for one in golden]
    factor = "digit" if "digit" in layout else layout.names[0]

    def draws(count: int) -> tuple[pb.SampleRequest, ...]:
        return tuple(pb.SampleRequest(count=count, seed=seed, format=pb.IMAGE_FORMAT_PNG) for seed in range(len(files)))

    return Requests(
        interpret=tuple(pb.InterpretRequest(inputs=[one]) for one in files),
        raw=tuple(
            pb.InterpretRequest(inputs=[pb.Input(image=pb.Tensor(shape=image.shape, data=one))]) for one in arrays
        ),
        inference=tuple(
            v2.ModelInferRequest(
                model_name=MODEL,
                inputs=[v2.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=(1, *image.shape))],
                raw_input_contents=[one],
            )
            for one in arrays
        ),
        edit=tuple(
            pb.EditRequest(
                targets=[target],
                edits=[pb.EditOperation(factor=factor, replace=pb.Replace(source=source))],
                format=pb.IMAGE_FORMAT_PNG,
            )
            for target, source in zip(files, sources, strict=True)
        ),
        sample=draws(samples),
        stream=draws(stream_samples),
    )


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)).save(file, "PNG")
    return file.getvalue()


def compare_servers(ours: str, bare: str, requests: Requests, tolerance: Tolerance) -> str:
    """Check that the servers at two addresses give the same answers; returns how far they are apart.

    Raises:
        RuntimeError: where they are further apart than the tolerances.

    """
    values, levels, counts = [0.0], [0], []
    with grpc.insecure_channel(ours) as one, grpc.insecure_channel(bare) as other:
        stubs = [pb_grpc.InterpretationServiceStub(channel) for channel in (one, other)]
        for request in (*requests.interpret, *requests.raw):
            found, expected = (_numbers(stub.Interpret(request)) for stub in stubs)
            values.append(np.abs(found - expected).max())
        for edit in requests.edit:
            found, expected = (_pixels(stub.Edit(edit).images.encoded[0]) for stub in stubs)
            levels.append(np.abs(found - expected).max())
        for stub in stubs:
            parts = list(stub.Sample(requests.sample[0]))
            counts.append([_pixels(file).shape for part in parts for file in part.images.encoded])
    wanted = requests.sample[0].count
    value, level = np.max(values), np.max(levels)  # NaN where there is one
    apart = not value <= tolerance.values or level > tolerance.grey_levels
    if apart or counts[0] != counts[1] or len(counts[0]) != wanted:
        raise RuntimeError(
            f"answers: expected at most {tolerance.values:g} and {tolerance.grey_levels} grey levels between the "
            f"servers and {wanted} samples of each, got {value:g}, {level} and {[len(shapes) for shapes in counts]}"
        )
    return f"values within {value:.1g}, edited images within {level} grey levels"


def compare_peer(ours: str, peer: str, requests: Requests, tolerance: Tolerance) -> str:
    """Check that a peer gives the latents, factors and log-determinants of ours; returns how far they are apart.

    Raises:
        RuntimeError: where they are further apart than the tolerance.

    """
    apart = []
    with grpc.insecure_channel(ours) as one, grpc.insecure_channel(peer) as other:
        interpret = pb_grpc.InterpretationServiceStub(one).Interpret
        infer = other.unary_unary(INFER, v2.ModelInferRequest.SerializeToString, v2.ModelInferResponse.FromString)
        for request, inference in zip(requests.raw, requests.inference, strict=True):
            expected, answer = interpret(request), infer(inference)
            arrays = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True))
            latent, factors, log_det = (np.frombuffer(arrays[name], "<f4") for name in OUTPUTS)
            log_prior = -0.5 * (np.square(factors, dtype=np.float64).sum() + factors.size * np.log(2 * np.pi))
            found = np.concatenate([latent, factors, log_prior + log_det])
            wanted = _numbers(expected)[: found.size]
            apart.append(np.abs(found - wanted).max())
    furthest = np.max(apart)  # NaN where there is one
    if not furthest <= tolerance.values:
        raise RuntimeError(f"answers: expected at most {tolerance.values:g} from ours, got {furthest:g}")
    return f"values within {furthest:.1g}"


def _numbers(response: pb.InterpretResponse) -> np.ndarray:
    tensors = [np.frombuffer(tensor.data, "<f4") for tensor in (response.latents, response.factors)]
    return np.concatenate([*tensors, response.log_likelihoods, response.log_likelihood_quantiles])


def _pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).astype(np.int16)
