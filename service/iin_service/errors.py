"""What can go wrong in a call; `faults` maps each class to a gRPC code."""

__all__ = ["Idle", "InvalidInput", "NotFound", "Overloaded", "ServiceError", "Unsupported", "short"]


def short(text: str, limit: int = 200) -> str:
    """`text`, cut to `limit` bytes: a status travels in metadata, and above 8 kB of it gRPC refuses some calls."""
    cut = text[: limit + 1].encode()
    return text if len(cut) <= limit else cut[: limit - 3].decode(errors="ignore") + "..."


class ServiceError(Exception):
    """A failure whose message the caller gets unchanged."""


class InvalidInput(ServiceError):
    """The caller's mistake: which field, what was expected, what was given."""

    def __init__(self, field: str, expected: str, given: str, remedy: str = "") -> None:
        """`field` is the path in the request, as in `inputs[2].encoded_image`."""
        self.field = field
        self.description = f"expected {short(expected, 1000)}, got {short(given)}" + (f"; {remedy}" if remedy else "")
        super().__init__(f"{field}: {self.description}")


class NotFound(ServiceError):
    """No model has that name or version."""


class Idle(ServiceError):
    """A stream was open for too long without a message."""


class Overloaded(ServiceError):
    """A bounded queue is full; nothing was computed."""


class Unsupported(ServiceError):
    """The model lacks a graph that the call needs."""
