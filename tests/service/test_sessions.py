"""What a replica's sessions are asked for on a GPU; that CUDA keeps to it shows on a GPU only."""

import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from iin_bundle import BundleError
from iin_service import app, sessions
from iin_service.items import Limits
from iin_service.sessions import Sessions, cuda_options, in_buckets, warm_up
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail
from pydantic import ValidationError

GIB = 2**30


def test_the_graphs_share_the_cap():
    assert cuda_options(4 * GIB, graphs=4)["gpu_mem_limit"] == GIB
    assert cuda_options(4 * GIB, graphs=5)["gpu_mem_limit"] * 5 <= 4 * GIB
    assert "gpu_mem_limit" not in cuda_options(None, graphs=4), "onnxruntime's own default"


def test_products_are_float32_and_no_call_waits_for_a_search():
    options = cuda_options(None, graphs=4)
    assert (options["use_tf32"], options["cudnn_conv_algo_search"]) == (0, "HEURISTIC")


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 33, 64, 65])
def test_a_bucket_gives_what_the_graph_gives(bundle, count):
    run, sizes = partial(Sessions(bundle, threads=1, gpu=False).run, "transform"), []

    def seen(items):
        sizes.append(len(items))
        return run(items)

    latents = np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)
    for found, expected in zip(in_buckets(seen)(latents), run(latents), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sizes == [min(size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size >= count)]


def test_every_size_that_calls_can_make_is_run_beforehand(bundle):
    graph, sizes, used = bundle.manifest.graphs["encoder"], [], set()
    warm_up(graph, lambda items: (sizes.append(items.shape), items)[1:])
    for count in range(1, Limits.max_batch_size + 1):
        in_buckets(lambda items: (used.add(items.shape), items)[1:])(np.zeros((count, 3, 32, 32), np.float32))
    assert set(sizes) == used
    assert len(sizes) == len(used)


def test_memory_that_does_not_suffice_is_named_before_anything_is_served(bundle):
    def run(items):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1048576")

    graph = bundle.manifest.graphs["encoder"]
    with pytest.raises(BundleError, match=r"encoder.onnx: .* batch of 64 .* 1048576; .* raise gpu_memory_bytes"):
        warm_up(graph, run)


def test_a_fault_of_the_gpu_is_raised_and_the_batch_not_run_elsewhere(bundle, monkeypatch):
    opened = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    found = Sessions(bundle, threads=1, gpu=False)

    def lost(*_):
        raise EPFail("CUDA failure 719: unspecified launch failure")

    for one in opened:
        one._sess = SimpleNamespace(run=lost, is_webgpu_graph_capture_enabled=lambda: False)
    with pytest.raises(EPFail, match="719"):
        found.run("transform", np.zeros((1, 32), np.float32))


def test_a_provider_that_does_not_start_tells_its_cause(bundle, monkeypatch):
    def create(self, providers, *_):
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", create)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    monkeypatch.setattr(sessions, "_providers", lambda gpu, options: [("CUDAExecutionProvider", options)])
    with pytest.raises(BundleError, match=r"encoder\.onnx: .* CUDA driver version is insufficient"):
        Sessions(bundle, threads=1, gpu=True)


@pytest.mark.parametrize("cap", [None, GIB])
def test_the_cap_reaches_the_replica(cap):
    arguments = app.BuildArguments(gpus=0.5, gpu_memory_bytes=cap)
    assert app.build(arguments)._bound_deployment.init_kwargs == {"threads": 1, "gpu": True, "gpu_memory_bytes": cap}


@pytest.mark.parametrize(("gpus", "cap"), [(0, GIB), (1, 0), (1, -1)])
def test_a_cap_needs_a_gpu_and_is_positive(gpus, cap):
    with pytest.raises(ValidationError, match="gpu_memory_bytes"):
        app.BuildArguments(gpus=gpus, gpu_memory_bytes=cap)


def test_onnxruntime_sends_no_telemetry(tmp_path):
    """Where it does, it keeps a mark of the device and what is to be sent below HOME."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")
    }
    command = "import iin_service.sessions, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", command], env=kept | {"HOME": str(tmp_path)}, check=True)
    assert not [*tmp_path.rglob("*onnxruntime*")]
