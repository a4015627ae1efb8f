"""The Open Inference Protocol: each graph, and interpret, edit and sample, as models that take and give tensors."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from iin_api.inference import grpc_service_pb2 as pb
from iin_bundle.reading import GRAPH_SIGNATURES
from iin_bundle.version import __version__
from numpy.typing import NDArray

from iin_service.answering import Answering
from iin_service.edits import Edit, Replace
from iin_service.engine import Engine
from iin_service.errors import InvalidInput, NotFound, short
from iin_service.faults import CallContext
from iin_service.inputs import InputReader
from iin_service.items import Decoded, Given, Kind, Trace, Wanted
from iin_service.requests import checked_number, checked_source
from iin_service.responses import MESSAGE_BYTES, check_bytes, timing
from iin_service.tensors import ANY, Tensor, TensorSpec, read_tensors, wanted_outputs, write_tensors

__all__ = ["InferenceRpcs"]

Inputs = Mapping[str, Tensor]
Outputs = dict[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class _Model:
    """A model of the protocol."""

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Inputs, Sequence[str], Trace], Awaitable[Outputs]]
    """Called with tensors whose items are admitted, the names of the outputs that are wanted, and the call's trace."""


class InferenceRpcs:
    """GRPCInferenceService for one engine."""

    def __init__(self, engine: Engine, items: InputReader, answering: Answering) -> None:
        """Answer with `engine`; `items` checks what is given."""
        self._engine, self._items, self._answering = engine, items, answering
        self._tensors = {kind: TensorSpec(kind, "FP32", (ANY, *shape)) for kind, shape in items.shapes.items()}
        self._models = {role: self._graph(role) for role in engine.manifest.graphs} | self._pipelines()

    def _graph(self, role: str) -> _Model:
        graph = self._engine.manifest.graphs[role]
        inputs, outputs = (
            tuple(TensorSpec(spec.name, "FP32", (ANY, *map(int, spec.shape[1:]))) for spec in side)
            for side in (graph.inputs, graph.outputs)
        )
        (taken,), kind = inputs, cast(Kind, GRAPH_SIGNATURES[role][0])

        async def run(given: Inputs, wanted: Sequence[str], trace: Trace) -> Outputs:
            tensor = _needed(given, taken.name)
            items = Given(kind, self._items.checked(kind, tensor.array, tensor.field), tensor.field)
            found = await self._engine.graph(role, items, trace)
            return {spec.name: output for spec, output in zip(outputs, found, strict=True)}

        return _Model("onnxruntime_onnx", inputs, outputs, run)

    def _pipelines(self) -> dict[str, _Model]:
        manifest = self._engine.manifest
        items = (*self._tensors.values(), TensorSpec("encoded_image", "BYTES", (ANY,)))
        sources = tuple(TensorSpec(f"source_{one.name}", one.datatype, one.shape) for one in items)
        head = manifest.graphs.get("head")
        classes = (TensorSpec("probabilities", "FP32", (ANY, int(head.outputs[0].shape[1]))),) if head else ()
        interpreted = (
            self._tensors["latent"],
            self._tensors["factors"],
            TensorSpec("log_likelihood", "FP64", (ANY,)),
            TensorSpec("log_likelihood_quantile", "FP64", (ANY,)),
            *classes,
        )
        image = (self._tensors["image"],) if "decoder" in manifest.graphs else ()
        decoded = (*image, self._tensors["factors"], self._tensors["latent"], *classes)
        edited = (*items, *sources, TensorSpec("factor", "BYTES", (ANY,)), TensorSpec("strength", "FP32", (1,)))
        drawn = (
            TensorSpec("count", "INT64", (1,)),
            TensorSpec("seed", "UINT64", (1,)),
            TensorSpec("temperature", "FP32", (1,)),
            TensorSpec("truncation", "FP32", (1,)),
        )
        return {
            "interpret": _Model("iin", items, interpreted, self._interpret),
            "edit": _Model("iin", edited, decoded, self._edit),
            "sample": _Model("iin", drawn, decoded, self._sample),
        }

    async def _interpret(self, given: Inputs, wanted: Sequence[str], trace: Trace) -> Outputs:
        found = await self._engine.interpret([await self._given(given, "", trace)], trace)
        return _present(
            latent=found.latents,
            factors=found.factors,
            log_likelihood=found.log_likelihoods,
            log_likelihood_quantile=found.quantiles,
            probabilities=found.probabilities,
        )

    async def _edit(self, given: Inputs, wanted: Sequence[str], trace: Trace) -> Outputs:
        target = await self._given(given, "", trace)
        source = await self._given(given, "source_", trace)
        checked_source(source, len(target.items), source.field)
        strength = _number(given, "strength", 1.0)
        names = [bytes(name).decode(errors="replace") for name in _needed(given, "factor").array]
        field = given["factor"].field
        for index, name in enumerate(names):
            if name not in self._engine.layout:
                raise InvalidInput(field, f"names out of {', '.join(self._engine.layout.names)}", repr(short(name)))
            if name in names[:index]:
                raise InvalidInput(field, "every factor once", f"{name!r} again")
        edits = [Edit(name, Replace(source, strength), source.field) for name in names]
        return _decoded(await self._engine.edit([target], edits, _of_items(wanted), trace))

    async def _sample(self, given: Inputs, wanted: Sequence[str], trace: Trace) -> Outputs:
        count, most = int(_needed(given, "count").array[0]), self._engine.compute.limits.max_items
        if not 1 <= count <= most:
            raise InvalidInput(given["count"].field, f"between 1 and {most}", str(count), "iin_api.v1 streams more")

        async def write(first: int, result: Decoded, part: Trace) -> Outputs:
            return _decoded(result)

        (draw,) = self._engine.sample(
            count,
            size=count,
            seed=int(given["seed"].array[0]) if "seed" in given else 0,
            temperature=_number(given, "temperature", 1.0),
            truncation=_number(given, "truncation", None),
            held=[],
            wanted=_of_items(wanted),
            trace=trace,
            write=write,
            field=given["temperature"].field if "temperature" in given else "inputs",
        )
        return await draw()

    async def _given(self, given: Inputs, prefix: str, trace: Trace) -> Given:
        """The items in the one tensor out of image, latent, factors and encoded_image that is given."""
        names = [prefix + name for name in (*self._tensors, "encoded_image")]
        found = [name for name in names if name in given]
        if len(found) != 1:
            raise InvalidInput("inputs", f"one of {', '.join(names)}", " and ".join(found) or "none of them")
        tensor, name = given[found[0]], found[0].removeprefix(prefix)
        if name != "encoded_image":
            kind = cast(Kind, name)
            return Given(kind, self._items.checked(kind, tensor.array, tensor.field), tensor.field)
        pictures = [
            await self._items.picture(data, f"{tensor.field} element {index}", resize=False, trace=trace)
            for index, data in enumerate(tensor.array)
        ]
        return await Given.together([Given("image", picture[None], tensor.field) for picture in pictures])

    def _model(self, name: str, version: str) -> _Model:
        if name not in self._models:
            raise NotFound(f"model '{short(name)}' is not served; there are {', '.join(self._models)}")
        if version not in ("", self._engine.manifest.version):
            raise NotFound(f"version '{short(version)}' of {name} is not served; {self._engine.manifest.version} is")
        return self._models[name]

    async def model_infer(self, request: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        """Run a model."""

        async def answer() -> pb.ModelInferResponse:
            trace = Trace()
            model = self._model(request.model_name, request.model_version)
            wanted = wanted_outputs(request, [spec.name for spec in model.outputs])
            compute = self._engine.compute
            given = read_tensors(request, model.inputs, compute.limits.max_items)
            # Names of factors count as items, since they are few; the engine counts the items that it draws.
            counts = [len(given[one.name].array) for one in model.inputs if one.shape[0] == ANY and one.name in given]
            # The outputs are of the first tensor's items.
            rows = min(int(given["count"].array[0]), compute.limits.max_items) if "count" in given else sum(counts[:1])
            item_bytes = sum(one.item_bytes for one in model.outputs if one.name in wanted)
            check_bytes(MESSAGE_BYTES + len(request.id.encode()) + rows * item_bytes, "outputs")
            async with compute.admitted(sum(counts), patient=False):
                outputs = await model.run(given, wanted, trace)
                response = write_tensors(request, outputs, wanted, self._engine.manifest.version)
                _write_timing(response, trace)
                return response

        return await self._answering.unary("ModelInfer", request, answer, context, pb.ModelInferResponse())

    async def model_metadata(self, request: pb.ModelMetadataRequest, context: CallContext) -> pb.ModelMetadataResponse:
        """Describe a model."""

        async def answer() -> pb.ModelMetadataResponse:
            model = self._model(request.name, request.version)
            return pb.ModelMetadataResponse(
                name=request.name,
                versions=[self._engine.manifest.version],
                platform=model.platform,
                inputs=[spec.message() for spec in model.inputs],
                outputs=[spec.message() for spec in model.outputs],
            )

        return await self._answering.unary("ModelMetadata", request, answer, context, pb.ModelMetadataResponse())

    async def model_ready(self, request: pb.ModelReadyRequest, context: CallContext) -> pb.ModelReadyResponse:
        """Whether a model takes calls."""
        version = request.version in ("", self._engine.manifest.version)
        return pb.ModelReadyResponse(ready=request.name in self._models and version)

    async def server_live(self, request: pb.ServerLiveRequest, context: CallContext) -> pb.ServerLiveResponse:
        """Whether the server answers."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: pb.ServerReadyRequest, context: CallContext) -> pb.ServerReadyResponse:
        """Whether all models take calls: there is no replica without them."""
        return pb.ServerReadyResponse(ready=True)

    async def server_metadata(
        self, request: pb.ServerMetadataRequest, context: CallContext
    ) -> pb.ServerMetadataResponse:
        """Describe the server."""
        return pb.ServerMetadataResponse(name="iin-serve", version=__version__)


def _needed(given: Inputs, name: str) -> Tensor:
    if name not in given:
        raise InvalidInput("inputs", f"a tensor {name}", ", ".join(given) or "none")
    return given[name]


def _number(given: Inputs, name: str, default: T) -> float | T:
    return checked_number(name, float(given[name].array[0]), given[name].field) if name in given else default


def _write_timing(response: pb.ModelInferResponse, trace: Trace) -> None:
    """Write `Timing` as parameters, in milliseconds; the passes of a stage are added up."""
    told = timing(trace)
    spent = {"total_ms": told.total_ms, "queue_ms": told.queue_ms, "codec_ms": told.codec_ms}
    for one in told.stages:
        name = f"{one.stage}_compute_ms"
        spent[name] = spent.get(name, 0.0) + one.compute_ms
    for name, milliseconds in spent.items():
        response.parameters[name].double_param = milliseconds


def _of_items(wanted: Sequence[str]) -> Wanted:
    """What the engine is to make of items, so that the `wanted` outputs are there."""
    return Wanted(images="image" in wanted, latents="latent" in wanted)


def _decoded(found: Decoded) -> Outputs:
    """Outputs of edit and sample."""
    return _present(image=found.images, factors=found.factors, latent=found.latents, probabilities=found.probabilities)


def _present(**outputs: NDArray[Any] | None) -> Outputs:
    return {name: output for name, output in outputs.items() if output is not None}
