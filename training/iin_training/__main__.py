"""Where `iin-train` starts: it tells of an extra that is not installed before anything else is imported."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code, 2 where the extra `train` is not installed."""
    try:
        from iin_training import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("iin_"):
            raise  # our own mistake
        print(
            f"iin-train: {error.name} is not installed; the extra train has it: "
            "in a checkout, pip install -c constraints.txt '.[train]'",
            file=sys.stderr,
        )
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
