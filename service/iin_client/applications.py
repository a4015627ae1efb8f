"""Names of the applications that are served, asked of Ray Serve itself: for a caller that knows none of them."""

from google.protobuf.field_mask_pb2 import FieldMask

__all__ = ["LIST_APPLICATIONS", "first_application"]

LIST_APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"


def first_application(response: bytes) -> str:
    """The first name in Ray's answer; ValueError where there is none."""
    # A FieldMask has the fields of Ray's message: repeated strings, number 1.
    names = sorted(FieldMask.FromString(response).paths)
    if not names:
        raise ValueError("application: expected the service to serve at least one model, got none; deploy one first")
    return names[0]
