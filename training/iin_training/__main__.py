"""Where `iin-train` starts: it tells of an extra that is not installed before anything else is imported."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code, 2 where the extra `train` is not installed, 130 after Ctrl-C."""
    try:
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
    except KeyboardInterrupt:  # before there was a run to go on with: torch, or a user's file, is being imported
        print("iin-train: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
