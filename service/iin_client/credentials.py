"""Tokens and certificates, checked where they are read: gRPC tells of bad ones late and in words of its own."""

from pathlib import Path

__all__ = ["checked_token", "is_header_text", "read_file", "read_pem"]


def read_file(path: str | Path, name: str) -> bytes:
    """The file that the option `name` names; OSError, with both, where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise type(error)(f"{name}: cannot read {path}: {error.strerror}") from None


def read_pem(path: str | Path, name: str) -> bytes:
    """The same of a key or certificates; ValueError where it holds none."""
    data = read_file(path, name)
    if b"-----BEGIN" not in data:
        raise ValueError(f"{name}: expected a PEM file, with a line -----BEGIN ..., got {path} without; name another")
    return data


def is_header_text(text: str) -> bool:
    """Whether a header can hold `text`: one line of printable ASCII, not empty."""
    return text != "" and text.isascii() and text.isprintable()


def checked_token(token: str, name: str) -> str:
    """`token`; ValueError, which does not show it, where no header could hold it."""
    if not is_header_text(token):
        got = "characters that are not" if token else "nothing"
        raise ValueError(
            f"{name}: expected one line of printable ASCII, got {got}; give the token alone, without a line break"
        )
    return token
