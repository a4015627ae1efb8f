"""Entry point of `iin`: says so where the extra `client` is missing, without which `iin_client` cannot be imported."""

import os
import signal
import sys
from contextlib import suppress

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code, 2 where the extra `client` is not installed.

    An interrupt ends the process by its signal: after a mere exit code a shell would go on with its loop.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log would repeat six times what the call's error says
    try:
        from iin_client import cli
    except KeyboardInterrupt:
        code = 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("iin_"):
            raise  # our own mistake
        print(
            f"iin: {error.name} is not installed; the extra client has it: "
            "in a checkout, pip install -c constraints.txt '.[client]'",
            file=sys.stderr,
        )
        return 2
    else:
        code = cli.main()
    if code == 130:
        with suppress(OSError):  # the signal ends the process before Python flushes stdout
            print(end="", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


if __name__ == "__main__":
    sys.exit(main())
