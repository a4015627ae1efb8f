"""A failed call says what to do about it."""

import pickle

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from iin_client.errors import CallError, Violation, call_error

BROKEN = any_pb2.Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff")


def failure(code, details, *packed):
    status = status_pb2.Status(code=code.value[0], message=details)
    for message in packed:
        status.details.add().Pack(message)
    trailing = Metadata(("content-type", "x"), ("grpc-status-details-bin", status.SerializeToString()))
    return AioRpcError(code, Metadata(), trailing, details)


def convert(error):
    return call_error(error, address="host:9000", timeout=2.5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("UNAVAILABLE", "nothing answers at host:9000; is the service running (iin-serve BUNDLE)"),
        ("DEADLINE_EXCEEDED", "queue is full (DEADLINE_EXCEEDED)"),
        (
            "RESOURCE_EXHAUSTED",
            "queue is full (RESOURCE_EXHAUSTED); send fewer items a call or try again later",
        ),
        ("NOT_FOUND", "queue is full (NOT_FOUND); name one of the models served at host:9000 with --application (in "),
        ("UNIMPLEMENTED", "host:9000 does not serve iin_api.v1.InterpretationService (queue is full)"),
        ("INTERNAL", "queue is full (INTERNAL)"),
    ],
)
def test_the_message_fits_the_status(code, message):
    error = convert(failure(grpc.StatusCode[code], "queue is full"))
    assert str(error).startswith(message)
    assert error.code is grpc.StatusCode[code]
    assert error.violations == ()


@pytest.mark.parametrize(
    ("rays", "ours"),
    [
        (
            "Application metadata not set.",
            "no application is named, and the service has several or, while it starts or stops, none (NOT_FOUND)",
        ),
        ("Application 'digist' not found.", "Application 'digist' not found (NOT_FOUND)"),
    ],
)
def test_a_model_that_is_not_named_is_told_without_ray(rays, ours):
    advice = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
    error = convert(failure(grpc.StatusCode.NOT_FOUND, f"{rays} {advice}"))
    assert str(error) == (
        f"{ours}; name one of the models served at host:9000 with --application (in Python application=), "
        "iin models lists them"
    )


@pytest.mark.parametrize("details", ["Deadline Exceeded", "Stream removed (Deadline Exceeded)"])
def test_the_callers_own_deadline_is_told_in_seconds(details):
    error = convert(failure(grpc.StatusCode.DEADLINE_EXCEEDED, details))
    assert str(error) == (
        "no whole answer from host:9000 within 2.5 s; check the address, "
        "allow more time (--timeout, in Python timeout=) or ask for less"
    )


def test_a_violation_that_the_message_states_is_not_repeated():
    bad_request = error_details_pb2.BadRequest(
        field_violations=[{"field": "count", "description": "expected at most 9, got 10"}]
    )
    details = "count: expected at most 9, got 10"
    error = convert(failure(grpc.StatusCode.INVALID_ARGUMENT, details, bad_request))
    assert error.violations == (Violation("count", "expected at most 9, got 10"),)
    assert error.message == "count: expected at most 9, got 10 (INVALID_ARGUMENT)"


def test_details_of_other_kinds_are_passed_over():
    other = error_details_pb2.ErrorInfo(reason="why")
    nested = any_pb2.Any(type_url="type.googleapis.com/unknown.Type", value=b"\x01")
    error = convert(failure(grpc.StatusCode.INVALID_ARGUMENT, "no", other, nested))
    assert error.violations == ()


@pytest.mark.parametrize("status", [b"\xff", status_pb2.Status(details=[BROKEN]).SerializeToString()])
def test_details_that_are_none_hide_no_error(status):
    trailing = Metadata(("grpc-status-details-bin", status))
    error = convert(AioRpcError(grpc.StatusCode.PERMISSION_DENIED, Metadata(), trailing, "bad key"))
    assert (str(error), error.violations) == ("bad key (PERMISSION_DENIED)", ())


def test_an_error_passes_from_one_process_to_another():
    error = CallError(grpc.StatusCode.INTERNAL, "broken", (Violation("count", "too many"),))
    found = pickle.loads(pickle.dumps(error))
    assert (str(found), found.code, found.violations) == ("broken", error.code, error.violations)
