"""Where `iin` starts: it tells of an extra that is not installed. `iin_client` itself cannot be imported without it."""

import os
import signal
import sys
from contextlib import suppress

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code, 2 where the extra `client` is not installed.

    An interrupt ends the process as it would without us: a shell goes on with its loop where we merely exit.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a refused handshake is told by the call, and six times by its log
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
        with suppress(OSError):  # a signal would leave it unwritten
            print(end="", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


if __name__ == "__main__":
    sys.exit(main())
