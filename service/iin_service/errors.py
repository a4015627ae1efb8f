"""What can go wrong in a call, in the service's own words; `rpc` maps it to gRPC codes."""

__all__ = ["InvalidInput", "Overloaded", "ServiceError", "Unsupported"]


class ServiceError(Exception):
    """A failure that the caller is told about as it is."""


class InvalidInput(ServiceError):
    """The caller's mistake: which field, what was expected, what was given."""

    def __init__(self, field: str, expected: str, given: str, remedy: str = "") -> None:
        """`field` is the path in the request, as in `inputs[2].encoded_image`."""
        self.field = field
        self.description = f"expected {expected}, got {given}" + (f"; {remedy}" if remedy else "")
        super().__init__(f"{field}: {self.description}")


class Overloaded(ServiceError):
    """A bounded queue is full; nothing was computed."""


class Unsupported(ServiceError):
    """The model lacks a graph that the call needs."""
