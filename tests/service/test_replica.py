"""One replica and its bundles: when one is loaded, what is bounded while two are held, and what is listed."""

import asyncio
import gc
import io
import re
import sys
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import BundleError, FactorLayout, read_bundle
from iin_service import inputs, replica, room
from iin_service.faults import logger
from iin_service.items import Given, Trace
from iin_service.recording import Recorder
from iin_service.replica import Replica
from iin_service.sessions import Sessions
from PIL import Image
from ray.serve.exceptions import RayServeException

from .fakes import Context, latent_request, quick_graphs, rpcs_of


class Noting(Recorder):
    """A recorder as `Metrics` is, without Ray."""

    refused, doubtful = None, False

    async def keep_gauges(self):
        """Nothing is kept."""

    def bundle_refused(self, refused):
        self.refused = refused

    def batch_failed(self):
        self.doubtful = True


@pytest.fixture
def made(monkeypatch):
    """A replica without Ray and without a bundle."""
    monkeypatch.setattr(replica, "Metrics", Noting)
    monkeypatch.setattr(logger, "handlers", [])
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    yield Replica(threads=1, gpu=False)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)
    gc.unfreeze()


def test_a_bundle_is_loaded_again_only_where_its_configuration_changes(made, monkeypatch):
    loads = []

    def load(path):
        loads.append(path)
        if path == "bad":
            raise BundleError("bad")
        return None, None, None

    monkeypatch.setattr(made, "_load", load)

    async def run():
        for path, refused in [("old", False), ("old", False), ("bad", True), ("bad", True), ("old", False)]:
            await made.reconfigure({"bundle": path, "manifest_sha256": path})
            assert made._metrics.refused is refused
        await made.reconfigure({"bundle": "old", "manifest_sha256": "exchanged"})

    asyncio.run(run())
    assert loads == ["old", "bad", "bad", "old"]


def test_bundles_are_loaded_one_after_the_other_and_the_last_named_is_served(made, monkeypatch):
    """Ray tells of a change of rank, and after the head's loss of everything, whether or not it waits for an answer."""
    loads, gate = [], threading.Event()

    def load(path):
        loads.append(path)
        if path == "slow":
            gate.wait(10)
            raise BundleError("bad")
        return None, path, None

    monkeypatch.setattr(made, "_load", load)

    async def run():
        await made.reconfigure({"bundle": "old"})
        calls = [asyncio.create_task(made.reconfigure({"bundle": path})) for path in ("slow", "new", "new")]
        await asyncio.sleep(0.1)
        gate.set()
        await asyncio.gather(*calls)

    asyncio.run(run())
    assert loads == ["old", "slow", "new"]
    assert (made._rpcs, made._metrics.refused) == ("new", False)


def test_a_first_bundle_that_is_refused_is_tried_again(made, monkeypatch):
    loads = []

    def load(path):
        loads.append(path)
        raise BundleError("bad")

    monkeypatch.setattr(made, "_load", load)
    for _ in range(2):
        with pytest.raises(BundleError):
            asyncio.run(made.reconfigure({"bundle": "bad"}))
    assert loads == ["bad", "bad"]


FAULTS = {
    "a missing key": ({}, r"for user_config\nbundle\n  Field required"),
    "a misspelt key": ({"bundel": "a"}, r"\nbundle\n  Field required (.*\n)*bundel\n  Extra inputs are not permitted"),
    "another key": ({"bundle": "a", "bundles": "b"}, r"\nbundles\n  Extra inputs are not permitted"),
    "a number": ({"bundle": 3}, r"\nbundle\n  Input should be a valid string .*input_value=3"),
    "no mapping": (["bundle"], r"for user_config\n  Input should be a valid dictionary"),
}


@pytest.mark.parametrize(("given", "words"), FAULTS.values(), ids=FAULTS)
def test_a_configuration_at_fault_is_refused_by_field_and_what_was_serving_keeps_serving(
    given, words, made, monkeypatch, caplog
):
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(made, "_load", lambda path: (None, path, None))
    with pytest.raises(ValueError, match=words):
        asyncio.run(made.reconfigure(given))
    asyncio.run(made.reconfigure({"bundle": "old"}))
    asyncio.run(made.reconfigure(given))
    assert (made._rpcs, made._metrics.refused) == ("old", True)
    assert re.search(words, caplog.text)


async def exchanged(made, bundle):
    """The RPCs of a bundle and of another that came in its place."""
    found = []
    for sha256 in ("old", "new"):
        await made.reconfigure({"bundle": str(bundle), "manifest_sha256": sha256})
        found.append(made._rpcs)
    assert found[0] is not found[1]
    return found


def test_a_stream_ends_on_the_bundle_before_and_a_call_with_its_values_is_refused_by_field(
    made, digits_bundle, monkeypatch
):
    old = read_bundle(digits_bundle)
    layout = FactorLayout.from_sizes({"residual": 40, "digit": 8})
    new = replace(old, manifest=replace(old.manifest, latent_shape=(layout.size,), factors=layout.slices))
    rpcs = {name: rpcs_of(one, quick_graphs(one)) for name, one in (("old", old), ("new", new))}
    monkeypatch.setattr(made, "_load", lambda path: (None, rpcs[path], None))
    monkeypatch.setattr(replica, "_raise_for_proxy", lambda context: None)  # asks Ray

    async def run():
        exchange = asyncio.Event()

        async def messages():
            yield pb.InterpretStreamRequest(request=latent_request(old))
            await exchange.wait()
            yield pb.InterpretStreamRequest(request=latent_request(old))

        await made.reconfigure({"bundle": "old"})
        answers = made.InterpretStream(messages(), Context())
        found = [await anext(answers)]
        await made.reconfigure({"bundle": "new"})
        exchange.set()
        found += [one async for one in answers]
        assert [one.response.factors.shape for one in found] == [[1, old.manifest.size]] * 2
        refused = Context()
        await made.Interpret(latent_request(old), refused)
        assert refused.code is StatusCode.INVALID_ARGUMENT
        assert refused.details.startswith("inputs[0].latent.shape: expected [48]")
        assert (await made.Interpret(latent_request(new), Context())).factors.shape == [1, 48]

    asyncio.run(run())


def threads(name):
    return {one for one in threading.enumerate() if one.name.startswith(name)}


async def turns():
    for _ in range(100):
        await asyncio.sleep(0)


def test_items_under_way_on_the_bundle_before_count(made, digits_bundle):
    async def run():
        old, new = await exchanged(made, digits_bundle)
        size = old._engine.layout.size
        async with old._engine.compute.admitted(4096, patient=False):
            factors = pb.Tensor(shape=[1, size], data=bytes(4 * size))
            context, request = Context(), pb.InterpretRequest(inputs=[pb.Input(factors=factors)])
            await new.interpret(request, context)
            assert context.code is StatusCode.RESOURCE_EXHAUSTED
        context = Context()
        await new.interpret(request, context)
        assert context.code is None

    asyncio.run(run())


def test_streams_open_on_the_bundle_before_count(made, digits_bundle, monkeypatch):
    monkeypatch.setattr(room, "MAX_STREAMS", 1)

    async def silent():
        await asyncio.Event().wait()
        yield

    async def run():
        old, new = await exchanged(made, digits_bundle)
        opened = asyncio.create_task(anext(old.interpret_stream(silent(), Context())))
        await asyncio.sleep(0)
        context = Context()
        assert await asyncio.wait_for(anext(new.edit_stream(silent(), context), None), 5) is None
        opened.cancel()
        return context.code

    assert asyncio.run(run()) is StatusCode.RESOURCE_EXHAUSTED


def test_graphs_of_two_bundles_run_one_at_a_time(made, digits_bundle):
    gate, before = threading.Event(), threads("compute")

    async def run():
        calls = []
        for one in await exchanged(made, digits_bundle):
            for stage in one._engine._graphs._stages.values():
                for role, graph in stage.graphs.items():
                    stage.graphs[role] = lambda items, graph=graph: (gate.wait(10), graph(items))[1]
            given = Given("latent", np.zeros((1, one._engine.layout.size), np.float32), "inputs")
            calls.append(asyncio.create_task(one._engine.interpret([given], Trace())))
        await turns()
        running = len(threads("compute") - before)
        gate.set()
        await asyncio.gather(*calls)
        return running

    assert asyncio.run(run()) == 1


def test_two_bundles_share_the_threads_that_decode(made, digits_bundle, monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (512, 512)).save(file, "PNG")
    gate, before, decode = threading.Event(), threads("decode"), inputs.decode_picture

    def gated(*arguments, **options):
        gate.wait(10)
        return decode(*arguments, **options)

    monkeypatch.setattr(inputs, "decode_picture", gated)

    async def run():
        readers = [one._read.items for one in await exchanged(made, digits_bundle)]
        calls = [
            asyncio.create_task(reader.picture(file.getvalue(), "inputs", resize=True, trace=Trace()))
            for reader in (*readers, *readers)
        ]
        await turns()
        decoding = len(threads("decode") - before)
        gate.set()
        await asyncio.gather(*calls)
        return decoding

    assert asyncio.run(run()) == 2


@pytest.fixture
def lost(made, digits_bundle, monkeypatch):
    """A replica that has loaded a bundle, and whose GPU is lost while `lost.now`."""
    state, run = SimpleNamespace(now=False, replica=made), Sessions.run

    def run_or_fail(self, role, items):
        if state.now:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")
        return run(self, role, items)

    monkeypatch.setattr(Sessions, "run", run_or_fail)
    asyncio.run(made.reconfigure({"bundle": str(digits_bundle)}))
    return state


def interpreted(made):
    context = Context()
    asyncio.run(made._rpcs.interpret(latent_request(made._rpcs._engine), context))
    return context.code


def test_a_replica_that_lost_its_gpu_is_unhealthy_as_long_as_it_is(lost):
    assert interpreted(lost.replica) is None
    asyncio.run(lost.replica.check_health())
    lost.now = True
    asyncio.run(lost.replica.check_health())  # nobody has called it since
    assert interpreted(lost.replica) is StatusCode.INTERNAL
    for _ in range(2):
        with pytest.raises(RuntimeError, match="CUDA"):
            asyncio.run(lost.replica.check_health())


def test_a_failure_of_a_graph_that_does_not_come_again_is_forgiven(lost):
    lost.now = True
    assert interpreted(lost.replica) is StatusCode.INTERNAL
    lost.now = False
    for _ in range(2):
        asyncio.run(lost.replica.check_health())
    assert not lost.replica._metrics.doubtful


def test_a_replica_without_a_user_config_is_not_taken_for_one_that_serves(made):
    """Serve tells it of none, and asks for its health before it sends calls."""
    with pytest.raises(ValueError, match="user_config: expected bundle, a path, got none"):
        asyncio.run(made.check_health())


def test_a_watch_that_its_caller_ends_gives_its_place_back_at_once(made):
    async def run():
        watch = made.Watch(HealthCheckRequest(), Context())
        await anext(watch)
        watching = made._health._watchers
        await watch.aclose()
        return watching, made._health._watchers

    assert asyncio.run(run()) == (1, 0)


@pytest.mark.parametrize("stream", ["Sample", "Traverse", "InterpretStream", "EditStream"])
def test_a_stream_lets_go_of_an_answer_that_was_taken(stream, made):
    class Answer:
        """One that a weak reference can be had of."""

    end = asyncio.Event()

    async def answers(*_):
        yield Answer()
        await end.wait()

    class Answering:
        sample = traverse = interpret_stream = edit_stream = answers

    made._rpcs = Answering()

    async def run():
        taken = getattr(made, stream)(None, Context())
        answer = weakref.ref(await anext(taken))
        rest = asyncio.create_task(anext(taken, None))
        await asyncio.sleep(0.01)
        rest.cancel()
        return answer()

    assert asyncio.run(run()) is None


def application(status, *deployments):
    return SimpleNamespace(status=SimpleNamespace(name=status), deployments=dict.fromkeys(deployments))


class Serve:
    """Ray Serve, as far as it is asked for applications."""

    def __init__(self):
        self.applications, self.handles = {}, {}

    def status(self):
        return SimpleNamespace(applications=self.applications)

    def get_app_handle(self, name):
        if name not in self.handles:
            raise RayServeException(f"Application '{name}' does not exist.")
        return self.handles[name]


def handle(name):
    async def describe():
        return pb.GetModelResponse(model=pb.Model(name=name)).SerializeToString()

    return SimpleNamespace(describe=SimpleNamespace(remote=describe))


def test_an_application_that_is_being_deleted_is_listed_as_such_and_spoils_no_other(made, monkeypatch):
    serve, listed = Serve(), set()
    monkeypatch.setattr(replica, "serve", serve)

    def found():
        return [
            (one.application, pb.ApplicationState.Name(one.state).rsplit("_", 1)[1], one.description.model.name)
            for one in asyncio.run(replica._list_models(listed))
        ]

    names = ("digits", "other")
    serve.applications = {name: application("RUNNING", "Interpretation") for name in names}
    serve.applications["foreign"] = application("RUNNING", "Foreign")
    serve.handles = {name: handle(name) for name in (*names, "foreign")}
    assert found() == [("digits", "RUNNING", "digits"), ("other", "RUNNING", "other")]
    del serve.handles["other"]  # between the two questions
    assert found() == [("digits", "RUNNING", "digits"), ("other", "RUNNING", "")]
    serve.applications |= {"other": application("DELETING"), "foreign": application("DELETING")}
    assert found() == [("digits", "RUNNING", "digits"), ("other", "DELETING", "")]
    del serve.applications["other"]
    assert found() == [("digits", "RUNNING", "digits")]
    serve.applications["other"] = application("DEPLOYING")  # of another kind, for all that is known
    assert found() == [("digits", "RUNNING", "digits")]


def test_each_rpc_bears_its_name_in_logs_and_tracebacks():
    rpcs = {name: rpc for name, rpc in vars(Replica).items() if name[0].isupper()}
    assert {"Interpret", "Sample", "ModelInfer", "Watch"} < set(rpcs)
    assert all((rpc.__name__, rpc.__qualname__) == (name, f"Replica.{name}") for name, rpc in rpcs.items())
