"""Where `iin-serve` starts: it tells of an extra that is not installed before anything else is imported."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code, 2 where the extra `serve` is not installed."""
    try:
        from iin_service import cli

        return cli.main()  # imports Ray once its settings are known
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("iin_"):
            raise  # our own mistake
        print(
            f"iin-serve: {error.name} is not installed; the extra serve has it (serve-gpu on GPUs): "
            "in a checkout, pip install -c constraints.txt '.[serve]'",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
