"""How many replicas, and what they cost: a model of the service for loads that do not run here.

  python -m deploy.capacity measure BUNDLE -o mine.json     stage times of your bundle on one core of this machine
  python -m deploy.capacity simulate --rate 500             one load: throughput, latency, queue
  python -m deploy.capacity plan                            replicas and cost at 10, 1,000 and 100,000 calls a second

Run it in the root of the repository, with the extra dev. docs/CAPACITY.md says what the model knows, what is assumed,
and how far its predictions were from what was measured.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from deploy.capacity.arrivals import Arrivals, Closed, Daily, Poisson
from deploy.capacity.autoscaler import read_autoscaling
from deploy.capacity.hardware import ASSUMED_PRICE_DATE, MACHINES, Machine
from deploy.capacity.inputs import CALLS, Stages, read_stages, what_is_wrong
from deploy.capacity.model import Scenario, simulate
from deploy.capacity.plan import capacity, comfortable, day, need, under_way

HERE = Path(__file__).parent
STAGES = HERE / "stages.json"
SERVE = HERE.parent / "serve" / "serve.yaml"
RATES = (10.0, 1000.0, 100_000.0)
HOURS_A_MONTH = 730
PEAK_TO_MEAN = 1.8  # of the day that is planned: the rate is its peak, a ninth of it its night
Progress = Callable[[str], None]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m deploy.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)

    one = commands.add_parser(
        "measure",
        help="stage times of a bundle on one core of this machine",
        description="Stage times of a bundle on one core of this machine. What a call costs beside its graphs is "
        "taken from the shipped file; `python -m tests.bench.capacity BUNDLE` measures both, and takes minutes.",
    )
    one.add_argument("bundle", type=Path, help="bundle directory")
    one.add_argument("-o", "--output", type=Path, default=Path("-"), help="JSON file (default: printed)")
    one.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default: 5)")
    one.add_argument("--seconds", type=float, default=0.3, help="of a batch size and round (default: 0.3)")

    def common(one: argparse.ArgumentParser) -> None:
        one.add_argument("--stages", type=Path, default=STAGES, help="stage times (default: the digits bundle's)")
        one.add_argument("--rpc", choices=CALLS, default="Interpret", help="what callers ask for (default: Interpret)")
        one.add_argument(
            "--times-larger",
            type=float,
            default=1.0,
            metavar="X",
            help="a model with X times the arithmetic, weights and traffic and as many nodes (default: 1)",
        )
        one.add_argument(
            "--choices", type=int, default=2, help="replicas among which a call finds the freest (default: 2)"
        )
        one.add_argument("--seed", type=int, default=0, help="of the random arrivals (default: 0)")

    one = commands.add_parser("simulate", help="one load on some replicas")
    common(one)
    load = one.add_mutually_exclusive_group(required=True)
    load.add_argument("--rate", type=float, help="calls a second, at random moments")
    load.add_argument("--callers", type=int, help="callers that wait for each answer")
    load.add_argument(
        "--daily",
        type=float,
        nargs=3,
        metavar=("MEAN", "PEAK", "SECONDS"),
        help="a day of so many seconds: mean and peak calls a second",
    )
    one.add_argument("--on", choices=MACHINES, default="CPU", help="machine (default: CPU)")
    one.add_argument("--cores", type=int, default=1, help="cores of a replica (default: 1)")
    one.add_argument("--sharing", type=int, default=1, help="replicas on a GPU (default: 1)")
    one.add_argument("--seconds", type=float, default=20.0, help="simulated time (default: 20, or the day)")
    one.add_argument("--replicas", type=int, default=1, help="how many (default: 1)")
    one.add_argument(
        "--autoscaled",
        type=Path,
        nargs="?",
        const=SERVE,
        metavar="SERVE_YAML",
        help="as many as Serve would run with the settings of this file (without a name: deploy/serve/serve.yaml)",
    )
    one.add_argument("--start-s", type=float, default=10.0, help="seconds until a new replica answers (default: 10)")

    one = commands.add_parser("plan", help="replicas and cost at several rates on several machines")
    common(one)
    one.add_argument("--rates", type=float, nargs="+", default=RATES, help="calls a second (default: 10 1000 100000)")
    one.add_argument("--p99-ms", type=float, default=100.0, help="latency of 99 of 100 calls, ms (default: 100)")
    one.add_argument("--on", nargs="+", choices=MACHINES, default=list(MACHINES), help="machines (default: all)")
    one.add_argument("--share", action="store_true", help="as many replicas on a GPU as its host has cores for")
    one.add_argument(
        "--usd-an-hour",
        type=float,
        nargs="+",
        metavar="USD",
        help="prices in place of the assumed ones, one for each machine of --on: a GPU with its host, or a core",
    )
    one.add_argument("--least", type=int, default=2, help="replicas at least: one may be lost (default: 2)")
    one.add_argument("--start-s", type=float, default=90.0, help="seconds until a new replica answers (default: 90)")
    return top


def main(words: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 bad input, 2 wrong usage, 130 interrupted."""
    given = parser().parse_args(words)
    try:
        with Console(stderr=True).status("") as status:
            progress: Progress = status.update
            {"measure": measured, "simulate": simulated, "plan": planned}[given.command](given, progress)
    except (OSError, ValueError) as error:
        message = what_is_wrong(error) if isinstance(error, ValidationError) else error
        print(f"capacity: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def measured(given: argparse.Namespace, progress: Progress) -> None:
    """`measure`."""
    from deploy.capacity.measure import measure  # onnx, which planning does without

    if given.rounds < 1 or given.seconds <= 0:
        raise ValueError("--rounds, --seconds: expected positive numbers")
    known = read_stages(STAGES)
    found = measure(given.bundle, rounds=given.rounds, seconds=given.seconds, progress=progress)
    found |= {"overhead_ms": known.overhead_ms, "wake_ms": known.wake_ms, "spread": known.spread}
    text = json.dumps(found, indent=2) + "\n"
    if str(given.output) == "-":
        print(text, end="")
    else:
        given.output.write_text(text)


def scenario(given: argparse.Namespace, stages: Stages, machine: Machine, sharing: int, cores: int) -> Scenario:
    """One replica as the command line describes it."""
    call = CALLS[given.rpc]
    stages.for_call(call)
    if given.times_larger <= 0:
        raise ValueError(f"--times-larger: expected more than 0, got {given.times_larger}")
    return Scenario(
        rows={name: machine.row(stages.rows[name].larger(given.times_larger)) for name, _ in call},
        call=call,
        overhead_ms=stages.overhead_ms,
        wake_ms=stages.wake_ms,
        spread=stages.spread,
        arrivals=Poisson(1.0),
        cores=cores,
        accelerated=machine.accelerated,
        replicas_a_gpu=sharing,
        choices=given.choices,
        seed=given.seed,
    )


def simulated(given: argparse.Namespace, progress: Progress) -> None:
    """`simulate`."""
    stages = read_stages(given.stages)
    one = scenario(given, stages, MACHINES[given.on], given.sharing, given.cores)
    arrivals: Arrivals
    seconds = given.seconds
    if given.daily:
        mean, peak, seconds = given.daily
        arrivals = Daily(mean=mean, peak=peak, day_s=seconds)
    else:
        arrivals = Closed(callers=given.callers) if given.callers is not None else Poisson(rate=given.rate)
    settings = read_autoscaling(given.autoscaled, given.start_s) if given.autoscaled else None
    one = replace(one, arrivals=arrivals, replicas=given.replicas, autoscaling=settings, seconds=seconds)
    result = simulate(one, lambda share: progress(f"simulating: {share:.0%}"))
    print(f"{given.rpc} on {given.on}, {stages.bundle}, stage times of {stages.date}: {arrivals}")
    print(f"throughput     {result.throughput:.1f} calls a second ({result.arrived} came, {result.refused} refused)")
    print(f"latency        p50 {result.percentile(50):.1f} ms, p99 {result.percentile(99):.1f} ms")
    print(f"batch          {result.mean_batch:.1f} items in the mean")
    print(f"queue          {result.mean_queue:.1f} items in the mean, {result.most_queued} at most, in a replica")
    print(f"under way      {result.mean_ongoing:.1f} calls a replica")
    last = dict(result.replicas)  # the last count at each moment
    print("replicas       " + ", ".join(f"{count} from {moment:.0f} s" for moment, count in last.items()))


def planned(given: argparse.Namespace, progress: Progress) -> None:
    """`plan`."""
    stages = read_stages(given.stages)
    if min(given.rates) <= 0 or given.p99_ms <= 0 or given.least < 1:
        raise ValueError("--rates, --p99-ms, --least: expected positive numbers")
    machines = [MACHINES[name] for name in given.on]
    if given.usd_an_hour:
        if len(given.usd_an_hour) != len(machines) or min(given.usd_an_hour) < 0:
            raise ValueError(f"--usd-an-hour: expected {len(machines)} prices, one for each machine of --on")
        prices = zip(machines, given.usd_an_hour, strict=True)
        machines = [replace(machine, assumed_usd_an_hour=price) for machine, price in prices]
    source = "given" if given.usd_an_hour else f"assumed, {ASSUMED_PRICE_DATE}"
    print(
        f"{given.rpc}, {stages.bundle} x {given.times_larger:g}, 99 of 100 calls within {given.p99_ms:g} ms; "
        f"at least {given.least} replicas; prices {source}; GPU times assumed\n"
    )
    print(
        "| on | calls/s | replicas | of a GPU | p50, ms | p99, ms | batch | queue | under way | target | USD/h "
        "| USD/month | USD/million calls | day: replicas | day: USD/month | day: overload |"
    )
    print("|---" * 16 + "|")
    for machine in machines:
        sharing = machine.most_replicas if given.share else 1
        plan_machine(given, stages, machine, sharing, progress)


def plan_machine(given: argparse.Namespace, stages: Stages, machine: Machine, sharing: int, status: Progress) -> None:
    """The rows of one machine."""

    def progress(text: str) -> None:
        status(f"{machine.name}: {text}")

    one = scenario(given, stages, machine, sharing, cores=1)
    each = capacity(one, given.p99_ms, progress)
    if each is None:
        print(f"| {machine.name} | | none reaches {given.p99_ms:g} ms " + "| " * 13 + "|")
        return
    usd, curve = machine.usd_a_replica(sharing), under_way(one, each.rate, progress)
    for rate in given.rates:
        needed, result = need(one, rate, given.p99_ms, each, progress)
        count = -(-max(needed, given.least) // sharing) * sharing  # whole GPUs
        settings = replace(
            read_autoscaling(SERVE, given.start_s),
            min_replicas=given.least,
            max_replicas=2 * count,
            target_ongoing_requests=comfortable(curve),
        )
        wave = day(curve, Daily(rate / PEAK_TO_MEAN, rate), settings)
        hourly = count * usd
        print(
            f"| {machine.name} | {rate:,.0f} | {count:,} | 1/{sharing} | {result.percentile(50):.1f} | "
            f"{result.percentile(99):.1f} | {result.mean_batch:.1f} | {result.mean_queue:.1f} | "
            f"{result.mean_ongoing:.1f} | {comfortable(curve):.1f} | {hourly:,.2f} | {hourly * HOURS_A_MONTH:,.0f} | "
            f"{hourly / 3600 / rate * 1e6:.3f} | {wave.mean:,.1f} ({wave.most:,}) | "
            f"{wave.mean * usd * HOURS_A_MONTH:,.0f} | {wave.late:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
