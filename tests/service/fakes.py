"""Stand-ins for what surrounds the service's parts, and requests for them."""

import io

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from iin_service.answering import Answering
from iin_service.engine import Engine
from iin_service.graphs import Compute
from iin_service.inference import InferenceRpcs
from iin_service.inputs import InputReader
from iin_service.items import Limits
from iin_service.recording import Recorder
from iin_service.requests import RequestReader
from iin_service.rpc import InterpretationRpcs
from PIL import Image


class Context:
    """Keeps what a call sets on its context."""

    code = details = None
    metadata = ()

    def set_code(self, code):
        self.code = code

    def set_details(self, details):
        self.details = details

    def set_trailing_metadata(self, metadata):
        self.metadata = metadata


class Noting(Recorder):
    """Keeps which calls ended how."""

    def __init__(self):
        self.calls = []

    def call(self, rpc, code, seconds):
        self.calls.append((rpc, code))


def rpcs_of(bundle, run, list_models=None, recorder=None, limits=None):
    compute = Compute(Limits() if limits is None else limits, recorder)
    reader = RequestReader(InputReader(bundle.manifest, compute))
    engine = Engine(bundle.manifest, run, compute)
    return InterpretationRpcs(engine, reader, Answering(recorder or Recorder()), list_models or no_models)


async def no_models():
    return []


def latent_request(bundle):
    shape = bundle.manifest.latent_shape
    return pb.InterpretRequest(inputs=[pb.Input(latent=pb.Tensor(shape=shape, data=bytes(4 * bundle.manifest.size)))])


def raising(error):
    def run(role, items):
        raise error

    return run


def inference_of(rpcs):
    return InferenceRpcs(rpcs._engine, rpcs._read.items, rpcs._answering)


def picture(side=32):
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return pb.Input(encoded_image=file.getvalue())


def quick_graphs(bundle):
    """Graphs of the bundle's shapes that compute nothing."""
    manifest = bundle.manifest

    def zeros(count, *shape):
        return np.zeros((count, *shape), np.float32)

    graphs = {
        "encoder": lambda items: (zeros(len(items), *manifest.latent_shape),),
        "transform": lambda items: (zeros(len(items), manifest.size), zeros(len(items))),
        "inverse": lambda items: (zeros(len(items), *manifest.latent_shape), zeros(len(items))),
        "decoder": lambda items: (zeros(len(items), *manifest.image.shape),),
    }
    return lambda role, items: graphs[role](items)


def raw_edit(bundle, count):
    shape = [count, bundle.manifest.size]
    factors = pb.Tensor(shape=shape, data=np.random.default_rng(0).normal(size=shape).astype("<f4").tobytes())
    request = pb.EditRequest(targets=[pb.Input(factors=factors)], format=pb.IMAGE_FORMAT_RAW, return_latents=True)
    request.edits.add(factor="digit").resample.seed = 1
    return request
