"""What becomes of calls while a cluster changes: nodes that go, a new bundle, a lost head, a load that rises and falls.

    .venv/bin/python -m tests.cluster.run BUNDLE                  all but cut, about 8 minutes
    .venv/bin/python -m tests.cluster.run BUNDLE rollout drain    some

Linux only; as root, or where users may make namespaces. On this one machine every Ray node has its own network,
processes and temporary files, as a pod has, and deploy/base/serve.env and deploy/serve/serve.yaml as they are but for
the values that the scenarios below name. Callers are the shipped client, with all its retries, at the addresses of all
workers; six call Interpret (every tenth time GetModel), one Sample, a stream. All of it ends with this command.

The scenarios (`scenarios`):
    rollout   a new bundle through user_config; one that does not verify; and back
    drain     a worker gets SIGTERM, as when its pod is deleted
    kill      a worker's processes get SIGKILL, and the operator brings another
    cut       a worker is cut off the network; loses the few calls that waited for its replica, so ask for it by name
    scale     the load rises and falls; replicas follow, and the nodes through Ray's autoscaler (v2)
    headloss  the head gets SIGKILL and is away for 15 s, with its state in Valkey (`pip install .[cluster]`)

IIN_CLUSTER_LOGS names a folder for Ray's logs of a scenario that went wrong.

Exit code: 0 no call was lost, 1 one was, or the cluster did not do what it should.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from iin_bundle import BundleError, read_bundle
from iin_client import CallError

from tests.cluster.nodes import isolate, make_network
from tests.cluster.scenarios import SCENARIOS

INSIDE = "IIN_CLUSTER_TEST"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="bundle directory; its model needs a decoder")
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default: all but cut)"
    )
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"SCENARIO: expected of {', '.join(SCENARIOS)}, got {', '.join(sorted(unknown))}")
    try:
        read_bundle(given.bundle)
    except BundleError as error:
        parser.error(str(error))
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        parser.error(f"expected the commands of util-linux and iproute2, found no {', '.join(missing)}")
    if os.environ.get(INSIDE) is None:
        os.environ[INSIDE] = "1"
        isolate([sys.executable, "-m", "tests.cluster.run", *sys.argv[1:]])
    make_network()
    failed = []
    for name in given.scenarios or [one for one in SCENARIOS if one != "cut"]:
        print(f"\n{name}", flush=True)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="iin-cluster-") as folder:
            try:
                load = SCENARIOS[name](given.bundle.resolve(), Path(folder))
            except (AssertionError, CallError, OSError, RuntimeError) as error:
                print(f"  FAILED: {error}")
                failed.append(name)
                continue
        print(f"  took {time.monotonic() - begin:.0f} s", flush=True)
        if load.lost or not load.seconds:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nno call was lost")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
