"""onnxruntime: the only module that knows it. Opens a bundle's graphs and runs them on numpy arrays."""

import importlib.metadata

import numpy as np
import onnxruntime as ort
from iin_bundle import Bundle, BundleError, Graph

from iin_service.items import Limits
from iin_service.stage import Array, Run

__all__ = ["Sessions", "cuda_options", "in_buckets", "warm_up"]

# ONNX Runtime's name of float32, the one element type of a manifest.
ORT_FLOAT32 = "tensor(float)"


class Sessions:
    """One inference session a graph, checked against the manifest."""

    def __init__(self, bundle: Bundle, *, threads: int, gpu: bool, gpu_memory_bytes: int | None = None) -> None:
        """Open every graph of `bundle` with `threads` CPU threads, on CUDA if `gpu`.

        On CUDA, batches have sizes of powers of two, see `in_buckets`. Each size is run here once, so that no call pays
        for what CUDA does at the first batch of a shape, and a lack of memory shows here.

        `gpu_memory_bytes` caps onnxruntime's arenas of GPU memory, which hold weights, activations and workspaces: each
        graph's arena gets an equal part. What CUDA takes for itself is not in it. None: no cap.

        Raises:
            BundleError: if a graph does not load, has other inputs or outputs than the manifest says, or does not run
                on the GPU.

        """
        _check_installation()
        providers = _providers(gpu, cuda_options(gpu_memory_bytes, len(bundle.manifest.graphs)))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Graphs run one at a time: idle threads that spin would take the event loop's core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._runs: dict[str, Run] = {}
        for role, graph in bundle.manifest.graphs.items():
            path = bundle.graph_path(role)
            try:
                # Without a fallback: at a fault of the GPU onnxruntime would go on, slowly, on the CPU.
                session = ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
            except Exception as error:  # onnxruntime raises classes of its own for every fault
                raise BundleError(f"{graph.file.path}: onnxruntime cannot load it: {error}") from error
            if gpu and "CUDAExecutionProvider" not in session.get_providers():
                raise BundleError(f"{graph.file.path}: expected to run on CUDA, but the provider did not start")
            for side, found, specs in (
                ("inputs", session.get_inputs(), graph.inputs),
                ("outputs", session.get_outputs(), graph.outputs),
            ):
                expected = [(spec.name, ORT_FLOAT32, list(spec.shape[1:])) for spec in specs]
                given = [(node.name, node.type, list(node.shape[1:])) for node in found]
                if expected != given or any(not isinstance(node.shape[0], str) for node in found):
                    raise BundleError(
                        f"{graph.file.path}: expected {side} {expected} with a dynamic batch axis as the manifest "
                        f"says, the graph has {[(node.name, node.type, node.shape) for node in found]}"
                    )
            run = _runner(session)
            if gpu:
                warm_up(graph, run)
            self._runs[role] = in_buckets(run) if gpu else run

    def run(self, role: str, items: Array) -> tuple[Array, ...]:
        """Outputs of the graph `role` for `items`, `(n, ...)`, in the manifest's order."""
        return self._runs[role](items)


def _runner(session: ort.InferenceSession) -> Run:
    name = session.get_inputs()[0].name

    def run(items: Array) -> tuple[Array, ...]:
        return tuple(session.run(None, {name: np.ascontiguousarray(items)}))

    return run


def _check_installation() -> None:
    """Refuse two builds of onnxruntime, which overwrite each other's files: one of the extras serve and serve-gpu."""
    names = ("onnxruntime", "onnxruntime-gpu")
    if all(any(True for _ in importlib.metadata.distributions(name=name)) for name in names):
        raise RuntimeError(
            "onnxruntime: expected one build, found onnxruntime and onnxruntime-gpu; uninstall both, then install "
            "the extra serve or the extra serve-gpu (training brings onnxruntime: use another environment for it)"
        )


def in_buckets(run: Run) -> Run:
    """`run` on batches of 1, 2, 4, 8, ... items only: others are padded with zeros, whose outputs are dropped.

    CUDA chooses algorithms and lays out memory for every new shape.
    """

    def filled(items: Array) -> tuple[Array, ...]:
        count = len(items)
        size = 1 << (count - 1).bit_length()
        if size == count:
            return run(items)
        whole = np.zeros((size, *items.shape[1:]), items.dtype)
        whole[:count] = items
        return tuple(output[:count] for output in run(whole))

    return filled


def warm_up(graph: Graph, run: Run) -> None:
    """Run every size of batch that `in_buckets` makes, the largest first, which shows whether the memory suffices."""
    for power in reversed(range((Limits.max_batch_size - 1).bit_length() + 1)):
        items = np.zeros((1 << power, *map(int, graph.inputs[0].shape[1:])), np.float32)
        try:
            run(items)
        except Exception as error:  # as above
            raise BundleError(
                f"{graph.file.path}: expected to run a batch of {len(items)} on the GPU: {error}; free GPU memory, or "
                "raise gpu_memory_bytes if it is set"
            ) from error


def _providers(gpu: bool, options: dict[str, int | str]) -> list[str | tuple[str, dict[str, int | str]]]:
    if not gpu:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BundleError(
            "GPU replicas: expected onnxruntime with the CUDA provider, found "
            f"{', '.join(ort.get_available_providers())}; install the extra serve-gpu instead of serve"
        )
    ort.preload_dlls()  # finds CUDA and cuDNN installed by pip
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def cuda_options(gpu_memory_bytes: int | None, graphs: int) -> dict[str, int | str]:
    """The CUDA provider's options for each of `graphs` sessions: every session has an arena of its own.

    Source: onnxruntime's documentation of the CUDA execution provider, for the names and its own defaults.
    """
    options: dict[str, int | str] = {
        # By default factors of products and convolutions are rounded to 10 bits; a bundle promises float32, to 1e-4.
        "use_tf32": 0,
        # By default every algorithm is timed for every shape, which takes long on a GPU that serves another bundle.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    return options if gpu_memory_bytes is None else options | {"gpu_mem_limit": gpu_memory_bytes // graphs}
