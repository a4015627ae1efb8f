"""Where `iin` starts: it tells of an extra that is not installed. `iin_client` itself cannot be imported without it."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code, 2 where the extra `client` is not installed."""
    try:
        from iin_client import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("iin_"):
            raise  # our own mistake
        print(
            f"iin: {error.name} is not installed; the extra client has it: "
            "in a checkout, pip install -c constraints.txt '.[client]'",
            file=sys.stderr,
        )
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
