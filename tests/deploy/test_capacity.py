"""The capacity model against queueing theory, Ray's own policy, and input that is wrong."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from iin_service.items import Limits
from iin_service.sessions import in_buckets
from onnx import TensorProto, helper
from ray.serve._private import autoscaling_state
from ray.serve._private.common import TimeStampedValue
from ray.serve.autoscaling_policy import _apply_delay_logic, _apply_scaling_factors
from ray.serve.config import AutoscalingConfig

from deploy.capacity import plan
from deploy.capacity.__main__ import SERVE, STAGES, main, parser
from deploy.capacity.__main__ import scenario as scenario_of
from deploy.capacity.arrivals import Closed, Daily, Poisson
from deploy.capacity.autoscaler import Autoscaler, Autoscaling, read_autoscaling
from deploy.capacity.hardware import MACHINES
from deploy.capacity.inputs import CALLS, Row, read_stages
from deploy.capacity.measure import _counted
from deploy.capacity.model import Scenario, filled_up, simulate
from deploy.capacity.plan import Curve, capacity, day, need, optimistic_capacity
from tests.bench.capacity import of_a_lone_call

CALL = (("graphs", 1),)
GOOD = {"overhead_ms": 1.0, "wake_ms": 0.5, "spread": 0.3, "rows": {"encoder+transform": {"ms": {"1": 1.0, "8": 2.0}}}}


def scenario(ms, arrivals, **others):
    others = {"overhead_ms": 0.0, "seconds": 60.0} | others
    return Scenario(rows={"graphs": Row(ms=ms)}, call=CALL, arrivals=arrivals, **others)


def mean_ms(result):
    return float(result.latencies_ms.mean())


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_by_one_it_is_m_d_1(load):
    """Pollaczek and Khinchine: W = s + load * s / (2 (1 - load))."""
    result = simulate(scenario({1: 10.0}, Poisson(100 * load), max_batch=1, seconds=150.0))
    assert mean_ms(result) == pytest.approx(10 + load * 10 / (2 * (1 - load)), rel=0.06)


@pytest.mark.parametrize("turns", [{"overhead_ms": 2.0}, {"wake_ms": 1.0}])
def test_turns_spread_about_their_means_and_the_fit_finds_how(turns):
    """A lone call: two turns of 1 ms, each times a log-normal factor of mean 1, and graphs of 0.4 ms."""
    result = simulate(scenario({1: 0.4}, Closed(1), **turns, spread=0.5))
    assert mean_ms(result) == pytest.approx(2.4, rel=0.02)
    factors = np.random.default_rng(0).lognormal(-0.125, 0.5, (2, 100_000)).sum(axis=0)
    for share in (1, 50, 99):
        assert result.percentile(share) == pytest.approx(0.4 + np.percentile(factors, share), rel=0.05)
    assert of_a_lone_call(0.4, result.percentile(50), result.percentile(99)) == pytest.approx((1, 0.5), rel=0.05)


@pytest.mark.parametrize("rate", [20, 100, 400])
def test_greedy_batches_without_a_limit(rate):
    """A batch of s seconds whatever its size: lam s calls come meanwhile, with e^(-lam s) none, and one is awaited."""
    result = simulate(scenario({1: 10.0}, Poisson(rate), max_batch=10_000, seconds=max(20.0, 6000 / rate)))
    come = rate * 0.01
    batch = come + math.exp(-come)
    assert result.mean_batch == pytest.approx(batch, rel=0.03)
    assert mean_ms(result) == pytest.approx(10 + come * 5 / batch, rel=0.03)


def test_turns_of_the_event_loop_are_shared():
    """A lone call pays two turns; a crowd shares three, as it comes back while its last answer is still written."""
    alone, crowd = (
        simulate(scenario({1: 1e-6}, Closed(n), overhead_ms=1.0, wake_ms=2.0, seconds=10.0)) for n in (1, 50)
    )
    assert alone.loop_ms == pytest.approx(5)
    assert alone.latencies_ms == pytest.approx(5, rel=1e-3)
    assert crowd.loop_ms == pytest.approx(1 + 6 / 50, rel=0.02)


def test_batches_grow_with_the_callers_and_callers_wait_as_little_law_says():
    kinds = {n: scenario({1: 2.0, 64: 16.0}, Closed(n), overhead_ms=0.5, seconds=10.0) for n in (1, 8, 64, 128)}
    found = {callers: simulate(one) for callers, one in kinds.items()}
    sizes = [result.mean_batch for result in found.values()]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert 30 < sizes[2] <= sizes[3] <= 64
    for callers, result in found.items():
        assert result.throughput * mean_ms(result) / 1e3 == pytest.approx(callers, rel=0.03)
    assert mean_ms(found[1]) == pytest.approx(2.5)


def test_throughput_stays_below_the_bound_and_comes_near():
    one = scenario({1: 2.0, 64: 16.0}, Closed(256), overhead_ms=0.5, seconds=10.0)
    assert 0.9 < simulate(one).throughput / optimistic_capacity(one) <= 1.01


@pytest.mark.parametrize("arrivals", [Poisson(900), Closed(40), Daily(300, 600, 8.0)])
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"replicas": 3},
        {"accelerated": True, "replicas": 4, "replicas_a_gpu": 2},
        {"max_items": 8},
        {"autoscaling": Autoscaling(max_replicas=4, upscale_delay_s=1, downscale_delay_s=1, start_s=0.5)},
    ],
)
def test_every_call_leaves(arrivals, kind):
    result = simulate(scenario({1: 1.0, 64: 16.0}, arrivals, overhead_ms=1.0, seconds=8.0, **kind))
    assert result.arrived == result.answered + result.refused > 0
    assert bool(result.refused) <= ("max_items" in kind)
    assert (result.latencies_ms >= 2.0 - 1e-6).all()


def test_a_call_of_two_rows_passes_both_and_a_turn_between():
    rows = {"encoder+transform": Row(ms={1: 1.0, 2: 1.5}), "inverse+decoder": Row(ms={1: 4.0})}
    result = simulate(Scenario(rows=rows, call=CALLS["Edit"], overhead_ms=2.0, arrivals=Closed(1)))
    assert result.latencies_ms == pytest.approx(1.5 + 4 + 3)
    assert result.loop_ms == pytest.approx(3)


def test_two_choices_are_better_than_one():
    p99 = {
        choices: simulate(
            scenario({1: 10.0}, Poisson(720), max_batch=1, replicas=8, choices=choices, seconds=12.0)
        ).percentile(99)
        for choices in (1, 2, 8)
    }
    assert max(p99[2], p99[8]) < 0.6 * p99[1]


def test_replicas_that_share_a_gpu_take_turns():
    def most(sharing):
        return simulate(
            scenario(
                {1: 10.0}, Closed(8), max_batch=1, accelerated=True, replicas=2, replicas_a_gpu=sharing, seconds=6.0
            )
        ).throughput

    assert most(2) == pytest.approx(100, rel=0.03)
    assert most(1) == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize("items", [1, 2, 3, 5, 8, 31, 33, 42, 63, 64])
def test_a_gpu_batch_costs_what_the_service_fills_it_up_to(items):
    """A millisecond an item, so the latency of a lone caller is what was run; on a CPU it is the batch itself."""
    ran = []
    in_buckets(lambda batch: (ran.append(len(batch)), batch)[1:])(np.zeros((items, 1), np.float32))
    for accelerated, batch in ((True, *ran), (False, items)):
        one = replace(scenario({1: 1.0, 64: 64.0}, Closed(1), accelerated=accelerated), call=(("graphs", items),))
        result = simulate(one)
        assert result.latencies_ms == pytest.approx(batch)
        assert result.graphs_ms == pytest.approx(batch)
        assert result.mean_batch == items


@pytest.mark.parametrize("machine", [one for one in MACHINES.values() if one.accelerated], ids=lambda one: one.name)
def test_gpu_times_are_exact_where_replicas_run_them(machine):
    """Launches, arithmetic and memory cross between measured batches; no straight line is drawn over the crossing."""
    row = Row(ms={1: 1.0, 64: 20.0}, mflop=1800.0, weights_mb=1250.0, traffic_mb=54.0, nodes=350)
    for batch in {filled_up(items) for items in range(1, Limits.max_batch_size + 1)}:
        assert machine.row(row).milliseconds(batch) == pytest.approx(machine.gpu_ms(row, batch))


def test_autoscaling_reaches_what_is_needed_and_lets_go():
    """Each replica does 100 a second, one by one; 450 a second keep 4.5 busy, and about 6 at one call each."""
    settings = Autoscaling(
        max_replicas=12,
        target_ongoing_requests=1,
        look_back_period_s=5,
        upscale_delay_s=2,
        downscale_delay_s=5,
        start_s=1,
    )
    result = simulate(scenario({1: 10.0}, Poisson(450), max_batch=1, autoscaling=settings, choices=12, seconds=60.0))
    late = [count for moment, count in result.replicas if moment > 30] or [result.replicas[-1][1]]
    assert 5 <= sum(late) / len(late) <= 8
    assert result.throughput == pytest.approx(450, rel=0.05)
    wave = simulate(
        scenario({1: 10.0}, Daily(100, 200, 60.0), max_batch=1, autoscaling=settings, choices=12, seconds=60.0)
    )
    counts = [count for _, count in wave.replicas]
    assert counts[0] < max(counts) > counts[-1]


def test_a_replica_that_is_not_wanted_any_more_does_not_come():
    """A burst of 5 s wants several, which would be there after 30 s; it is over, and forgotten, before."""
    settings = Autoscaling(
        max_replicas=9,
        target_ongoing_requests=1,
        look_back_period_s=2,
        upscale_delay_s=1,
        downscale_delay_s=2,
        start_s=30,
    )
    burst = SimpleNamespace(times=lambda random: (moment / 200 for moment in range(1000)))
    result = simulate(scenario({1: 10.0}, burst, max_batch=1, autoscaling=settings))
    assert result.most_queued > 100
    assert result.replicas == [(0, 1)]


@pytest.mark.parametrize("factors", [{}, {"upscaling_factor": 0.6, "downscaling_factor": 0.1}])
def test_the_autoscaler_decides_as_rays(factors):
    """The same calls under way through both, second by second; a replica comes 15 s after it is wanted."""
    common = {"min_replicas": 1, "max_replicas": 9, "upscale_delay_s": 10, "downscale_delay_s": 30} | factors
    config = AutoscalingConfig(**common)
    ours = Autoscaler(Autoscaling(**common, target_ongoing_requests=4, look_back_period_s=1e-3))
    generator, targets, state = np.random.default_rng(0), [1], {}
    ongoing = 0.0
    for now in range(2000):
        if generator.random() < 0.04:
            ongoing = float(generator.integers(0, 50))
        running = min(targets[-15:])
        wanted = _apply_scaling_factors(ongoing / 4, running, config)
        rays, state = _apply_delay_logic(wanted, targets[-1], config, state, float(now))
        targets.append(min(max(rays, 1), 9))
        assert ours.decide(float(now), ongoing, running) == targets[-1]
    assert len(set(targets)) > 4


def test_the_autoscaler_looks_back_as_rays(monkeypatch):
    """Replicas with equal numbers of calls come and go; the target is 1 and nothing is delayed: the mean, rounded."""
    rays = SimpleNamespace(_config=AutoscalingConfig(max_replicas=5000))
    ours = Autoscaler(Autoscaling(max_replicas=5000, target_ongoing_requests=1, upscale_delay_s=0, downscale_delay_s=0))
    generator, replicas = np.random.default_rng(0), [[], []]
    for now in range(300):
        if now % 10 == 0:
            replicas = replicas[1:] if generator.random() < 0.5 and len(replicas) > 1 else [*replicas, []]
        calls = float(generator.integers(0, 50))
        replicas = [[one for one in series if one.timestamp >= now - 30] for series in replicas]
        for series in replicas:
            series.append(TimeStampedValue(float(now), calls))
        monkeypatch.setattr(autoscaling_state, "time", SimpleNamespace(time=lambda now=now: now + 1.0))
        mean = autoscaling_state.DeploymentAutoscalingState._merge_and_aggregate_timeseries(rays, replicas)
        assert ours.decide(float(now), calls * len(replicas), len(replicas)) == max(math.ceil(mean - 1e-9), 1)


def test_one_burst_starts_no_replica():
    scaler = Autoscaler(Autoscaling(max_replicas=8, target_ongoing_requests=16, upscale_delay_s=10))
    counts = {scaler.decide(float(now), 200.0 if now == 100 else 8.0, 1) for now in range(200)}
    assert counts == {1}


def test_a_day_follows_its_wave():
    curve, wave = Curve((0.0, 50.0, 100.0), (0.0, 2.0, 10.0)), Daily(1000, 1800)
    found = day(curve, wave, Autoscaling(min_replicas=2, max_replicas=60, target_ongoing_requests=2, start_s=60))
    assert found.most == pytest.approx(1800 / 50, abs=1)
    assert found.mean == pytest.approx(1000 / 50, rel=0.1)
    assert found.late == 0
    short = day(curve, wave, Autoscaling(min_replicas=2, max_replicas=5, target_ongoing_requests=2))
    assert short.most == 5
    assert short.late > 0.4


def test_commands_plan_with_what_was_fitted():
    stages = read_stages(STAGES)
    one = scenario_of(parser().parse_args(["plan"]), stages, MACHINES["CPU"], 1, 1)
    assert (one.overhead_ms, one.wake_ms, one.spread) == (stages.overhead_ms, stages.wake_ms, stages.spread)
    assert min(one.overhead_ms, one.wake_ms, one.spread) > 0


@pytest.mark.parametrize("peak", [5_000, 10_000, 100_000])
def test_what_is_shipped_does_not_swing(peak):
    """Calls under way grow faster than the load: a whole step down goes too far, and the next one up further still."""
    rates, calls = (0, 148, 369, 738, 1033, 1254, 1475), (0, 0.3, 0.9, 2.9, 7.0, 16.5, 64.0)  # of digits on a core
    curve, wave = Curve(rates, calls), Daily(peak / 1.8, peak)
    need = math.ceil(peak / curve.rates[-1])
    settings = replace(read_autoscaling(SERVE, 90.0), max_replicas=2 * need)
    swinging, calm = (day(curve, wave, one) for one in (replace(settings, downscaling_factor=1.0), settings))
    assert swinging.late > 0.05
    assert calm.late == 0
    assert calm.mean < need


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(plan, "CALLS", 2500)
    monkeypatch.setattr(plan, "LEAST_S", 2.0)


@pytest.mark.usefixtures("short")
def test_more_calls_need_more_replicas_in_proportion():
    one = scenario({1: 2.0, 64: 20.0}, Poisson(1), overhead_ms=20.0, choices=8)
    each = capacity(one, 150.0)
    assert each is not None
    assert 0.5 * optimistic_capacity(one) < each.rate < optimistic_capacity(one)
    assert each.result.percentile(99) <= 150
    counts = {rate: need(one, rate, 150.0, each)[0] for rate in (10, 100, 100_000)}
    assert counts[10] == 1
    assert counts[100_000] == math.ceil(100_000 / each.rate)
    assert counts[100] == pytest.approx(100 / each.rate, abs=1.5)


@pytest.mark.usefixtures("short")
def test_a_target_below_a_lone_call_is_never_reached():
    assert capacity(scenario({1: 50.0}, Poisson(1), overhead_ms=20.0), 60.0) is None


def test_larger_graphs_gain_on_a_gpu_and_small_ones_are_bound_by_kernels():
    small = Row(ms={1: 1.0, 64: 20.0}, mflop=18.0, weights_mb=12.0, traffic_mb=0.5, nodes=350)
    large = small.larger(100)
    times = {
        name: [machine.row(row).milliseconds(64) for row in (small, large)]
        for name, machine in MACHINES.items()
        if machine.accelerated
    }
    assert len({round(one, 6) for one, _ in times.values()}) == 1, "the same number of kernels"
    assert times["H100"][1] < times["L40S"][1] < times["A10G"][1] < times["L4"][1] < large.milliseconds(64)
    assert MACHINES["CPU"].row(small) is small


def test_what_a_graph_computes_is_counted(tmp_path):
    """Conv: 2 * 4*8*8 * 3*3*3; Gemm: 2 * 256 * 10."""
    weights = {"w": np.zeros((4, 3, 3, 3), np.float32), "g": np.zeros((10, 256), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Flatten", ["c"], ["f"]),
            helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    found = _counted(tmp_path / "net.onnx")
    assert found["mflop"] == pytest.approx((2 * 256 * 27 + 2 * 2560) / 1e6)
    assert found["weights_mb"] == pytest.approx(4 * (108 + 2560) / 1e6)
    assert found["traffic_mb"] == pytest.approx(8 * (256 + 256 + 10) / 1e6)
    assert found["nodes"] == 3


def test_the_shipped_inputs_are_good():
    stages = read_stages(STAGES)
    for call in CALLS.values():
        stages.for_call(call)
    assert stages.overhead_ms > 0
    assert stages.wake_ms > 0
    (most,) = re.findall(r" max_replicas: (\d+)", SERVE.read_text())
    assert read_autoscaling(SERVE).max_replicas == int(most)


def test_times_between_batches_are_on_straight_lines():
    row = Row(ms={1: 1.0, 8: 8.0, 64: 64.0 + 56})
    assert [row.milliseconds(batch) for batch in (1, 2, 8, 36, 64, 128)] == pytest.approx([1, 2, 8, 64, 120, 248])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": None}, "rows: Input should be an object"),
        ({"rows": {}}, "rows: Dictionary should have at least 1 item"),
        ({"rows": {"a": 3}}, "rows.a: Input should be an object"),
        ({"rows": {"a": {"ms": {"8": 1.0}}}}, "rows.a.ms: .* 1 among them"),
        ({"rows": {"a": {"ms": {"1": 1.0, "many": 2.0}}}}, "rows.a.ms.many.* valid integer"),
        ({"rows": {"a": {"ms": {"1": 0.0}}}}, "rows.a.ms.1: Input should be greater than 0, got 0.0"),
        ({"rows": {"a": {"ms": {"1": float("nan")}}}}, "rows.a.ms.1: Input should be a finite number"),
        ({"rows": {"a": {"ms": {"1": 2.0, "8": 1.0}}}}, "rows.a.ms: expected times that do not fall"),
        ({"rows": {"a": {"ms": {"1": 2.0}, "nodes": -1}}}, "rows.a.nodes: Input should be greater than or equal to 0"),
        ({"overhead_ms": None}, "overhead_ms: Input should be a valid number, got None"),
        ({"overhead_ms": "2"}, "overhead_ms: Input should be a valid number, got '2'"),
        ({"wake_ms": -1.0}, "wake_ms: Input should be greater than or equal to 0, got -1.0"),
        ({"spread": None}, "spread: Input should be a valid number"),
    ],
)
def test_bad_stage_times_are_named(change, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError, match=f"^{path}: expected stage times as `measure` writes them: {message}"):
        read_stages(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(rate=0), "rate\n.*greater than 0"),
        (lambda: Daily(10, 25), "peak: expected mean to 2"),
        (lambda: Daily(mean=10, peak=15, day_s=0), "day_s"),
        (lambda: Closed(callers=0), "callers"),
        (lambda: Autoscaling(min_replicas=3, max_replicas=2), "min_replicas, max_replicas"),
        (lambda: Autoscaling(target_ongoing_requests=0), "target_ongoing_requests"),
        (lambda: Autoscaling(upscale_delay_s=-1), "upscale_delay_s"),
        (lambda: Autoscaling(downscaling_factor=0), "downscaling_factor"),
        (lambda: scenario({1: 1.0}, Poisson(1), replicas=0), "replicas: expected 1 or more, got 0"),
        (lambda: scenario({1: 1.0}, Poisson(1), seconds=1.0, warm_up_s=2.0), "seconds: expected more than"),
        (lambda: Scenario(rows={}, call=CALL, overhead_ms=1, arrivals=Poisson(1)), "call: expected known rows"),
        (lambda: MACHINES["L4"].row(Row(ms={1: 1.0})), "mflop, nodes: expected counts"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_serve_configuration_without_autoscaling_is_refused(tmp_path):
    (tmp_path / "serve.yaml").write_text("applications: [{deployments: [{num_replicas: 2}]}]")
    with pytest.raises(ValueError, match="expected one application, one deployment and its autoscaling_config"):
        read_autoscaling(tmp_path / "serve.yaml")
    (tmp_path / "serve.yaml").write_text(SERVE.read_text().replace("upscale_delay_s: 10", "upscale_delay: 10"))
    with pytest.raises(ValueError, match="upscale_delay"):
        read_autoscaling(tmp_path / "serve.yaml")


def test_the_commands_answer(tmp_path, capsys):
    (tmp_path / "stages.json").write_text(json.dumps(GOOD))
    own = ["--stages", str(tmp_path / "stages.json")]
    assert main(["simulate", *own, "--rate", "100", "--seconds", "4", "--autoscaled"]) == 0
    assert "p99" in capsys.readouterr().out
    assert main(["simulate", *own, "--callers", "4", "--rpc", "Edit"]) == 1
    assert "rows: expected 'inverse+decoder', found encoder+transform" in capsys.readouterr().err
    assert main(["plan", "--stages", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
    assert main(["plan", *own, "--rates", "-1"]) == 1
    assert main(["simulate", *own, "--rate", "0"]) == 1
    assert "capacity: rate: Input should be greater than 0, got 0.0\n" in capsys.readouterr().err
    assert main(["simulate", *own, "--daily", "10", "30", "60"]) == 1
    assert "capacity: peak: expected mean to 2 * mean, the mean being 10.0, got 30.0\n" in capsys.readouterr().err
