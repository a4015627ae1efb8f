"""Both clients against a real gRPC server in this process."""

import asyncio
import itertools
import re
import signal
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import get_type_hints

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1.interpretation_pb2_grpc import (
    InterpretationServiceServicer,
    add_InterpretationServiceServicer_to_server,
)
from iin_client import (
    AsyncClient,
    CallError,
    Client,
    Factors,
    RandomWalk,
    Replace,
    Resample,
    Tls,
    Violation,
    base,
    streaming,
)
from iin_client.streaming import AHEAD


class Identity(InterpretationServiceServicer):
    """Serves the identity as transform of given factors; refuses first with the statuses in `failures`."""

    def __init__(self):
        self.failures = []
        self.metadata = []
        self.edited = []
        self.streams = []
        self.left = threading.Event()
        self.file_bytes = self.answered = 0
        self.ahead = threading.Event()

    def Interpret(self, request, context):
        self._arrive(context)
        factors = request.inputs[0].factors
        return pb.InterpretResponse(latents=factors, factors=factors, log_likelihoods=[0.0])

    def Edit(self, request, context):
        details = any_pb2.Any()
        details.Pack(
            error_details_pb2.BadRequest(
                field_violations=[{"field": "edits[0].factor", "description": "expected digit, got dgit"}]
            )
        )
        status = status_pb2.Status(code=3, message="edits: one is wrong", details=[details])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message)

    def InterpretStream(self, requests, context):
        """Breaks off after three answers, as Ray does after `request_timeout_s`."""
        self.streams.append([])
        for one in requests:
            if len(self.streams[-1]) == 3:
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Request timed out after 60s.")
            self.streams[-1].append(one.item_id)
            factors = pb.Tensor(shape=[1, 1], data=bytes(4))
            answer = pb.InterpretResponse(latents=factors, factors=factors, log_likelihoods=[0.0])
            yield pb.InterpretStreamResponse(item_id=one.item_id, response=answer)

    def EditStream(self, requests, context):
        for one in requests:
            sources = [edit.replace.source.encoded_image for edit in one.request.edits]
            self.edited.append((one.item_id, len(one.request.targets), sources))
            factors = pb.Tensor(shape=[1, 1], data=bytes(4))
            images = pb.Images(encoded=[bytes(self.file_bytes)])
            yield pb.EditStreamResponse(item_id=one.item_id, response=pb.EditResponse(factors=factors, images=images))
            self.answered += 1  # the answer is on its way
            if self.answered == 1 + AHEAD:
                self.ahead.set()

    def Sample(self, request, context):
        self._arrive(context)
        context.add_callback(self.left.set)
        for index in range(request.count):
            tensor = pb.Tensor(shape=[1, 1], data=np.float32(index).tobytes())
            yield pb.SampleResponse(first_index=index, factors=tensor)

    def GetModel(self, request, context):
        self._arrive(context)
        return pb.GetModelResponse(model=pb.Model(name="identity"))

    def _arrive(self, context):
        self.metadata.append(dict(context.invocation_metadata()))
        if not self.failures:
            return
        failure = self.failures.pop(0)
        if failure is grpc.StatusCode.DEADLINE_EXCEEDED:
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait()
        context.abort(failure, "not now")


@pytest.fixture
def service():
    return Identity()


@contextmanager
def serving(service, *handlers):
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers, options=options)
    add_InterpretationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(grace=None).wait()


@pytest.fixture
def address(service):
    with serving(service) as address:
        yield address


def ask(address, method, *arguments, **options):
    with Client(address, **options) as client:
        return getattr(client, method)(*arguments)


def ask_async(address, method, *arguments, **options):
    async def call():
        async with AsyncClient(address, **options) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(call())


both = pytest.mark.parametrize("ask", [ask, ask_async])


@both
def test_unavailable_is_retried_until_it_succeeds(ask, service, address):
    service.failures = [grpc.StatusCode.UNAVAILABLE] * 3
    assert ask(address, "get_model").name == "identity"
    assert len(service.metadata) == 4


@both
def test_the_fourth_unavailable_is_reported(ask, service, address):
    service.failures = [grpc.StatusCode.UNAVAILABLE] * 5
    with pytest.raises(CallError, match=f"nothing answers at {address}; is the service running") as caught:
        ask(address, "get_model")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert len(service.failures) == 1


@both
@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL])
def test_other_failures_are_not_retried(ask, code, service, address):
    service.failures = [code]
    with pytest.raises(CallError, match="not now") as caught:
        ask(address, "get_model")
    assert caught.value.code is code
    assert len(service.metadata) == 1


@both
def test_the_deadline_ends_the_call(ask, service, address):
    service.failures = [grpc.StatusCode.DEADLINE_EXCEEDED]
    with pytest.raises(CallError, match=f"no whole answer from {address} within 0.3 s") as caught:
        ask(address, "get_model", timeout=0.3)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@both
def test_the_application_is_sent_if_one_is_named(ask, service, address):
    ask(address, "get_model")
    ask(address, "get_model", application="faces")
    assert [metadata.get("application") for metadata in service.metadata] == [None, "faces"]


def test_calls_spread_over_all_addresses(service, address):
    other = Identity()
    with serving(other) as also:
        one, two = (f"127.0.0.1:{each.rpartition(':')[2]}" for each in (address, also))
        with Client(f"ipv4:{one},{two}") as client:
            for _ in range(1000):  # the second connection may come later than the first
                client.get_model()
                if service.metadata and other.metadata:
                    break
    assert service.metadata
    assert other.metadata


@both
def test_a_service_on_this_machine_is_not_behind_the_proxy(ask, address, monkeypatch):
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    assert ask(address, "get_model").name == "identity"


def test_a_large_request_is_retried_too(service, address):
    # 4 MiB: beyond the 256 KiB that gRPC keeps for retries unless told otherwise.
    factors = np.arange(2**20, dtype=np.float32)[None]
    service.failures = [grpc.StatusCode.UNAVAILABLE]
    with Client(address) as client:
        found = client.interpret(Factors(factors))
    np.testing.assert_array_equal(found.factors, factors)
    assert len(service.metadata) == 2


@both
def test_waiting_outlasts_the_retries_of_one_call(ask, service, address):
    service.failures = [grpc.StatusCode.UNAVAILABLE] * 5 + [grpc.StatusCode.NOT_FOUND]
    assert ask(address, "wait_until_ready").name == "identity"


@both
def test_waiting_ends_at_once_for_what_waiting_does_not_mend(ask, service, address):
    service.failures = [grpc.StatusCode.UNIMPLEMENTED]
    with pytest.raises(CallError, match=r"does not serve iin_api\.v1\.InterpretationService"):
        ask(address, "wait_until_ready")


@both
def test_waiting_for_a_service_that_never_comes_ends(ask):
    with pytest.raises(CallError, match=r"localhost:1") as caught:
        ask("localhost:1", "wait_until_ready", 0.5)
    assert caught.value.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


@both
def test_waiting_no_time_is_told_as_such(ask):
    with pytest.raises(CallError, match="no whole answer from localhost:1 within 0 s"):
        ask("localhost:1", "wait_until_ready", 0.0)


@both
def test_waiting_asks_again_where_no_answer_comes(ask, service, address, monkeypatch):
    monkeypatch.setattr(base, "_ATTEMPT_S", 0.3)
    service.failures = [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    assert ask(address, "wait_until_ready", 60.0).name == "identity"
    assert len(service.metadata) >= 3


@pytest.mark.parametrize(("remaining", "expected"), [(60.0, 5.0), (2.0, 2.0)])
def test_an_attempt_has_five_seconds_of_what_remains(remaining, expected):
    options = Client("localhost:1", application="digits")._attempt(remaining)
    assert options == {"timeout": expected, "metadata": (("application", "digits"),), "wait_for_ready": True}


@both
def test_the_field_at_fault_arrives_with_the_error(ask, address):
    with pytest.raises(CallError) as caught:
        ask(address, "edit", b"file", Resample("dgit"))
    assert caught.value.violations == (Violation("edits[0].factor", "expected digit, got dgit"),)
    assert str(caught.value) == ("edits: one is wrong (INVALID_ARGUMENT); edits[0].factor: expected digit, got dgit")


class Several(InterpretationServiceServicer):
    """Lists models where one is named, as a service of several does; Ray names them."""

    def __init__(self, *names):
        self.names = names
        self.metadata = []
        self.refusals = []
        self.seconds = 0.0

    def ListModels(self, request, context):
        time.sleep(self.seconds)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.metadata[-1].get("application") not in self.names:
            context.abort(grpc.StatusCode.NOT_FOUND, "Application metadata not set.")
        return pb.ListModelsResponse(models=[pb.ServedModel(application=name) for name in self.names if name])

    def ListApplications(self, request, context):
        if self.refusals:
            context.abort(self.refusals.pop(0), "bad key")
        time.sleep(self.seconds)
        self.metadata.append(dict(context.invocation_metadata()))
        return FieldMask(paths=self.names).SerializeToString()

    def ray(self):
        """Ray's own service, which shares the port."""
        method = grpc.unary_unary_rpc_method_handler(self.ListApplications)
        return grpc.method_handlers_generic_handler("ray.serve.RayServeAPIService", {"ListApplications": method})


@both
@pytest.mark.parametrize("names", [["one", "other"], []])
def test_models_are_listed_without_a_name_and_with_the_token(ask, names, monkeypatch):
    for grpc_ in (grpc, grpc.aio):  # a token needs TLS, which the server here does without
        plain = grpc_.insecure_channel
        monkeypatch.setattr(grpc_, "secure_channel", lambda to, _, options, plain=plain: plain(to, options=options))
    service = Several(*names)
    with serving(service, service.ray()) as address:
        found = ask(address, "list_models", tls=Tls(), token="secret")
    assert [one.application for one in found] == names
    assert {metadata["authorization"] for metadata in service.metadata} == {"Bearer secret"}


@both
def test_models_that_a_gateway_lets_nobody_list_are_told_as_unnamed(ask):
    """deploy/components/gateway passes no services of Ray's."""
    with serving(Several("one", "other")) as address, pytest.raises(CallError, match="no application is named") as told:
        ask(address, "list_models")
    assert told.value.code is grpc.StatusCode.NOT_FOUND


@both
def test_why_models_cannot_be_listed_is_told_where_no_gateway_forbids_it(ask):
    service = Several("one", "other")
    service.refusals = [grpc.StatusCode.UNAUTHENTICATED]
    with serving(service, service.ray()) as address, pytest.raises(CallError, match="bad key") as told:
        ask(address, "list_models")
    assert told.value.code is grpc.StatusCode.UNAUTHENTICATED


@both
def test_a_lone_model_is_listed_whatever_becomes_of_rays_own_method(ask):
    service = Several("one")
    service.names = ["one", None]  # which needs no name
    service.refusals = [grpc.StatusCode.UNAVAILABLE] * 9
    with serving(service, service.ray()) as address:
        assert ask(address, "list_models")[0].application == "one"
    assert len(service.refusals) == 9


@both
def test_a_list_of_models_outlasts_a_moment_in_which_ray_does_not_answer(ask):
    service = Several("one", "other")
    service.refusals = [grpc.StatusCode.UNAVAILABLE] * 3
    with serving(service, service.ray()) as address:
        assert [one.application for one in ask(address, "list_models")] == ["one", "other"]


@both
def test_a_list_of_models_that_takes_several_calls_has_one_deadline(ask):
    service = Several("one", "other")
    service.seconds = 0.4
    with serving(service, service.ray()) as address, pytest.raises(CallError, match=r"no whole answer .* within 1 s"):
        ask(address, "list_models", timeout=1.0)


def test_samples_arrive_in_order(service, address):
    with Client(address) as client:
        chunks = list(client.sample(3))
    assert [(chunk.first_index, chunk.factors.item()) for chunk in chunks] == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_failing_stream_is_a_call_error(service, address):
    service.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    with Client(address) as client, pytest.raises(CallError, match=r"not now \(FAILED_PRECONDITION\)"):
        list(client.sample(3))


def test_leaving_the_samples_early_cancels_the_call(service, address):
    with Client(address) as client:
        chunks = client.sample(1_000_000)
        assert next(chunks).first_index == 0
        chunks.close()
        assert service.left.wait(timeout=20)


def test_async_samples_arrive_in_order_and_can_be_left(service, address):
    async def call():
        async with AsyncClient(address) as client:
            chunks = client.sample(1_000_000)
            first = [(await anext(chunks)).first_index for _ in range(3)]
            await chunks.aclose()
            assert await asyncio.to_thread(service.left.wait, 20)
            return first

    assert asyncio.run(call()) == [0, 1, 2]


def test_a_wrong_argument_of_sample_is_reported_before_iteration(address):
    with Client(address) as client, pytest.raises(ValueError, match="count: expected a whole number"):
        client.sample(-1)


def edit_stream(address, targets, edits, taken=None):
    taken = [] if taken is None else taken
    with Client(address) as client:
        for answer in client.edit_stream(targets, edits):
            taken.append(answer)
    return taken


def edit_stream_async(address, targets, edits, taken=None):
    taken = [] if taken is None else taken

    async def items():
        for item in targets:
            yield item

    async def call():
        async with AsyncClient(address) as client:
            async for answer in client.edit_stream(items(), edits):
                taken.append(answer)
        return taken

    return asyncio.run(call())


@pytest.mark.parametrize("stream", [edit_stream, edit_stream_async])
def test_a_source_is_read_once_for_all_items_of_a_stream(stream, service, address, tmp_path):
    source = tmp_path / "source.png"
    source.write_bytes(b"picture")

    def targets():
        for index in range(5):
            source.unlink(missing_ok=True)
            yield str(index), [b"target"] * (index + 1)

    answers = stream(address, targets(), Replace("digit", source))
    assert [(answer.item_id, answer.error) for answer in answers] == [(str(index), None) for index in range(5)]
    assert service.edited == [(str(index), index + 1, [b"picture"]) for index in range(5)]


class Leaving(BaseException):
    """No error, as `SystemExit` is none."""


@pytest.mark.parametrize("stream", [edit_stream, edit_stream_async])
@pytest.mark.parametrize("kind", [SystemExit, Leaving])
def test_an_exit_among_the_items_is_one_for_the_caller(stream, kind, address):
    def targets():
        yield "0", b"target"
        raise kind("no more targets")

    with pytest.raises(kind, match="no more targets"):
        stream(address, targets(), Resample("digit"))


def test_a_cancelled_future_among_the_items_is_one_for_the_caller(address):
    async def items():
        yield "0", b"target"
        future = asyncio.get_running_loop().create_future()
        future.cancel("no more targets")
        await future

    async def call():
        async with AsyncClient(address) as client:
            with pytest.raises(asyncio.CancelledError, match="no more targets"):
                [answer async for answer in client.edit_stream(items(), Resample("digit"))]

    asyncio.run(call())


@pytest.mark.parametrize("stream", [edit_stream, edit_stream_async])
@pytest.mark.parametrize(
    ("item", "got"),
    [
        ((0, b"target"), r"\(0, b'target'\)"),
        (("0", b"target", None), r"\('0', b'target', None\)"),
        ("ab", "'ab'"),
        (Path("a.png"), r"PosixPath\('a\.png'\)"),
    ],
)
def test_items_without_an_id_are_refused(stream, item, got, address):
    with pytest.raises(ValueError, match=rf"items: expected pairs of an id, which is text, and inputs, got {got}; "):
        stream(address, [item], Resample("digit"))


@pytest.mark.parametrize("stream", [edit_stream, edit_stream_async])
def test_an_item_too_large_to_send_is_named_after_the_answers_before_it(stream, service, address, monkeypatch):
    """gRPC would end the call, and drop the answers on their way."""
    monkeypatch.setattr(streaming, "MAX_MESSAGE_BYTES", 1000)
    items, taken = [("1", b"target"), ("2", b"target"), ("3", bytes(1000)), ("4", b"target")], []
    with pytest.raises(ValueError, match=r"items: expected at most 1000 bytes a message, got 10.. for '3'; "):
        stream(address, items, Resample("digit"), taken)
    assert [answer.item_id for answer in taken] == ["1", "2"]


def many_targets():
    return ((str(index), b"target") for index in range(2 * AHEAD))


async def each(items):
    for item in items:
        yield item


def take_late(service, address):
    with Client(address) as client:
        stream = client.edit_stream(many_targets(), Resample("digit"))
        first = next(stream)
        assert service.ahead.wait(timeout=20)
        held = service.answered
        return held, [first, *stream]


def take_late_async(service, address):
    async def call():
        async with AsyncClient(address) as client:
            stream = client.edit_stream(each(many_targets()), Resample("digit"))
            first = await anext(stream)
            assert await asyncio.to_thread(service.ahead.wait, 20)
            held = service.answered
            return held, [first, *[answer async for answer in stream]]

    return asyncio.run(call())


@pytest.mark.parametrize("take", [take_late, take_late_async])
def test_answers_are_read_before_they_are_taken_and_no_more_than_may_be_ahead(take, service, address):
    service.file_bytes = 2**20  # more than the transport holds for a caller who does not read
    held, answers = take(service, address)
    assert held == 1 + AHEAD
    assert [answer.item_id for answer in answers] == [item_id for item_id, _ in many_targets()]


def broken_targets():
    yield "0", b"target"
    raise OSError("no more targets")


def broken_off(stream):
    with pytest.raises(OSError, match="no more targets"):
        list(stream)


def refused(stream):
    with pytest.raises(CallError, match="60s"):
        list(stream)


def left(stream):
    next(stream)
    stream.close()


ENDINGS = {
    "all answers": ("edit_stream", many_targets, list),
    "an item that cannot be sent": ("edit_stream", broken_targets, broken_off),
    "the service's error": ("interpret_stream", many_targets, refused),
    "left early": ("edit_stream", many_targets, left),
    "let go of": ("edit_stream", many_targets, next),
    "never asked": ("edit_stream", many_targets, lambda stream: None),
}


def assert_no_reader_is_left():
    for thread in threading.enumerate():
        if thread.name == "iin stream reader":
            thread.join(timeout=20)
            assert not thread.is_alive()


@pytest.mark.parametrize(("method", "items", "end"), ENDINGS.values(), ids=ENDINGS)
def test_a_stream_leaves_no_thread_however_it_ends(method, items, end, address):
    with Client(address) as client:
        edits = [Resample("digit")] if method == "edit_stream" else []
        end(getattr(client, method)(items(), *edits))
        assert_no_reader_is_left()


def test_an_async_stream_that_breaks_off_while_it_sends_is_told_as_such(address):
    """Most of the time grpc.aio has lost the status then, and says that something internal went wrong."""

    async def call():
        told = []
        async with AsyncClient(address) as client:
            for _ in range(20):
                with pytest.raises(CallError) as caught:
                    [
                        answer
                        async for answer in client.interpret_stream(each((str(n), bytes(20_000)) for n in range(99)))
                    ]
                told.append((caught.value.code, str(caught.value)))
        return told

    for code, message in asyncio.run(call()):
        assert (code, "status is lost; try again" in message) in (
            (grpc.StatusCode.DEADLINE_EXCEEDED, False),
            (grpc.StatusCode.UNAVAILABLE, True),
        )


@pytest.mark.parametrize("end", ["all answers", "the service's error", "left early", "let go of", "cancelled"])
def test_an_async_stream_leaves_no_task_however_it_ends(end, service, address):
    async def waiting():
        yield "0", b"target"
        await asyncio.Event().wait()

    async def take(client):
        if end == "the service's error":
            with pytest.raises(CallError) as caught:
                [answer async for answer in client.interpret_stream(each(many_targets()))]
            assert caught.value.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            return
        items = waiting() if end == "cancelled" else each(many_targets())
        stream = client.edit_stream(items, Resample("digit"))
        await anext(stream)
        if end == "left early":
            await stream.aclose()
        elif end != "let go of":
            assert len([answer async for answer in stream]) == 2 * AHEAD - 1

    async def call():
        async with AsyncClient(address) as client:
            taking = asyncio.create_task(take(client))
            if end == "cancelled":
                while not service.edited:
                    await asyncio.sleep(0.01)
                taking.cancel()
            await asyncio.wait([taking], timeout=20)
            assert taking.cancelled() == (end == "cancelled")
            if not taking.cancelled():
                taking.result()
            readers = [task for task in asyncio.all_tasks() if task.get_name() == "iin stream reader"]
            assert not readers or not (await asyncio.wait(readers, timeout=20))[1]

    asyncio.run(call())


def test_an_async_stream_that_the_service_ends_takes_no_item_more(address):
    async def call():
        queue = asyncio.Queue()

        async def items():
            while True:
                yield await queue.get(), b"picture"

        for item_id in "0123":  # at the fourth the service breaks off
            queue.put_nowait(item_id)
        async with AsyncClient(address) as client:
            with pytest.raises(CallError):
                [answer async for answer in client.interpret_stream(items())]
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others or not (await asyncio.wait(others, timeout=20))[1]
            queue.put_nowait("4")
            await asyncio.sleep(0)
            assert queue.qsize() == 1

    asyncio.run(call())


def test_an_interrupt_reaches_who_waits_for_an_answer(address):
    taken, ended, slept = threading.Event(), threading.Event(), threading.Event()

    def items():
        yield "0", b"target"
        taken.wait(timeout=20)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        if not ended.wait(timeout=20):
            slept.set()

    def take():
        for _ in stream:
            taken.set()

    with Client(address) as client:
        stream = client.edit_stream(items(), Resample("digit"))
        with pytest.raises(KeyboardInterrupt):
            take()
        assert not slept.is_set()
        ended.set()
        stream.close()
        assert_no_reader_is_left()


def test_closing_the_client_ends_a_stream_that_is_being_read(address):
    client = Client(address)
    stream = client.edit_stream(((str(index), b"target") for index in itertools.count()), Resample("digit"))
    next(stream)
    client.close()
    with pytest.raises(CallError) as caught:
        list(stream)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    assert_no_reader_is_left()


@pytest.mark.parametrize("kind", ["call", "answers", "stream of requests"])
def test_closing_the_async_client_fails_what_is_under_way_and_cancels_no_task(kind, service, address):
    """A task group, for one, takes a task that raises CancelledError for one that has done its work."""

    async def call():
        client = AsyncClient(address)
        begun = asyncio.Event()

        async def take():
            if kind == "call":
                begun.set()
                await client.get_model()
            many = each((str(index), b"target") for index in itertools.count())
            answers = client.sample(1_000_000) if kind == "answers" else client.edit_stream(many, Resample("digit"))
            async for _ in answers:
                begun.set()

        service.failures = [grpc.StatusCode.DEADLINE_EXCEEDED] if kind == "call" else []
        taking = asyncio.create_task(take())
        await begun.wait()
        while not service.metadata and kind == "call":
            await asyncio.sleep(0.01)
        await client.close()
        await asyncio.wait([taking], timeout=20)
        return taking

    taking = asyncio.run(call())
    assert not taking.cancelled()
    assert isinstance(taking.exception(), CallError)
    assert taking.exception().code is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("ask", [lambda client: client.get_model(), lambda client: anext(client.sample(1))])
def test_a_closed_async_client_refuses_calls(ask, address):
    """As gRPC itself does for the other one."""

    async def call():
        client = AsyncClient(address)
        await client.close()
        with pytest.raises(ValueError, match="closed"):
            await ask(client)

    asyncio.run(call())


STREAMS = {
    "Sample": lambda client, items: client.sample(3),
    "Traverse": lambda client, items: client.traverse(b"file", RandomWalk(), 2),
    "InterpretStream": lambda client, items: client.interpret_stream(items),
    "EditStream": lambda client, items: client.edit_stream(items, Resample("digit")),
}


class Begun(Exception):
    """A call was made."""


def refuse(*arguments, **options):
    raise Begun


@pytest.mark.parametrize(("client", "close"), [(Client, "close"), (AsyncClient, "aclose")])
@pytest.mark.parametrize("method", ["sample", "traverse", "interpret_stream", "edit_stream"])
def test_the_type_of_a_stream_knows_how_to_end_it(client, close, method):
    assert hasattr(get_type_hints(getattr(client, method))["return"], close)


@pytest.mark.parametrize("rpc", STREAMS)
def test_a_stream_begins_when_its_first_answer_is_asked_for(rpc, address, monkeypatch):
    with Client(address) as client:
        monkeypatch.setattr(client._stub, rpc, refuse)
        stream = STREAMS[rpc](client, iter([("one", b"file")]))
        with pytest.raises(Begun):
            next(stream)


@pytest.mark.parametrize("rpc", STREAMS)
def test_an_async_stream_begins_when_its_first_answer_is_asked_for(rpc, address, monkeypatch):
    async def items():
        yield "one", b"file"

    async def call():
        async with AsyncClient(address) as client:
            monkeypatch.setattr(client._stub, rpc, refuse)
            stream = STREAMS[rpc](client, items())
            with pytest.raises(Begun):
                await anext(stream)

    asyncio.run(call())


def test_the_loop_in_the_documentation_goes_on_where_a_stream_breaks_off(
    service, address, tmp_path, monkeypatch, capsys
):
    text = (Path(__file__).parents[2] / "docs" / "CLIENTS.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", text, re.S) if "except CallError" in one)
    samples = tmp_path / "build" / "demo" / "bundle" / "samples"
    samples.mkdir(parents=True)
    names = [f"{index}.png" for index in range(8)]
    for name in names:
        (samples / name).write_bytes(b"picture")
    monkeypatch.chdir(tmp_path)
    exec(block.replace("localhost:9000", address), {})
    assert service.streams == [["0", "1", "2"], ["3", "4", "5"], ["6", "7"]]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
