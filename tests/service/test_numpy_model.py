"""The engine on a model of numpy functions: who waits under load and who is refused, overflows, analyses."""

import asyncio
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from iin_bundle import FactorLayout, LogLikelihoodQuantiles
from iin_service.edits import Purpose, draw_prior
from iin_service.engine import Engine
from iin_service.errors import InvalidInput, Overloaded
from iin_service.graphs import Compute
from iin_service.items import Given, Limits, Trace, Wanted
from iin_service.recording import Recorder
from iin_service.stage import Stage
from iin_service.walks import LinearWalk

LAYOUT = FactorLayout.from_sizes({"residual": 3, "digit": 2})
ENDLESS = 7.0  # a latent that begins with it has an infinite log-determinant, and finite factors


def transform(latents):
    return latents, np.where(latents[:, 0] == ENDLESS, np.inf, 0).astype(np.float32)


def inverse(factors):
    return factors, np.zeros(len(factors), np.float32)


def head(latents):
    return (np.stack([latents[:, 0], 1 - latents[:, 0]], axis=1),)


GRAPHS = {"transform": transform, "inverse": inverse, "head": head}


def run(role, items):
    return GRAPHS[role](items)


MANIFEST = SimpleNamespace(
    name="numpy",
    graphs=GRAPHS,
    layout=LAYOUT,
    size=LAYOUT.size,
    log_likelihood_quantiles=LogLikelihoodQuantiles(probabilities=(0.0, 1.0), values=(-100.0, 0.0)),
)


class Counts(Recorder):
    """Keeps every count of items under way."""

    def __init__(self):
        self.kept = []

    def under_way(self, items):
        self.kept.append(items)


@pytest.fixture
def counts():
    return Counts()


@pytest.fixture
def engine(counts):
    limits = Limits(max_queued_items=8, max_batch_size=4)
    return Engine(MANIFEST, run, Compute(limits, counts))


def given(kind, count):
    return Given(kind, np.zeros((count, LAYOUT.size), np.float32), "inputs")


def load(engine, count):
    """While it is entered, a call of `count` items is under way."""
    return engine.compute.admitted(count, patient=False)


async def part(first, found, trace):
    """What is made of a part of a stream."""
    return first, found


def sample(engine, count):
    how = {"size": 5, "wanted": Wanted(images=False), "trace": Trace(), "write": part}
    return engine.sample(count, seed=7, temperature=1.0, truncation=None, held=[], **how)


def traverse(engine, count):
    path = LinearWalk("digit", np.ones(2, np.float32), 1.0)
    how = {"size": 5, "wanted": Wanted(images=False), "trace": Trace(), "write": part}
    return engine.traverse(given("factors", 1).items, path, count, **how)


async def interpret(engine, count, *, patient=False):
    async with engine.compute.admitted(count, patient=patient):
        return await engine.interpret([given("latent", count)], Trace())


def test_patient_calls_leave_half_of_the_room_to_the_others(engine):
    async def run():
        async with load(engine, 4):
            patient = asyncio.create_task(interpret(engine, 1, patient=True))
            await asyncio.sleep(0)
            await interpret(engine, 4)
            assert not patient.done()
        assert len((await patient).factors) == 1

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_patient_call_is_let_into_its_half(engine):
    async def run():
        async with load(engine, 3):
            assert len((await interpret(engine, 1, patient=True)).factors) == 1

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("parts_of", [sample, traverse])
def test_a_stream_that_has_begun_waits_for_room_and_is_not_refused(parts_of, engine):
    async def run():
        parts = parts_of(engine, 10)
        assert (await next(parts)())[0] == 0
        async with load(engine, 8):
            following = asyncio.create_task(next(parts)())
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await next(parts_of(engine, 10))()
            assert not following.done()
        assert (await following)[0] == 5

    asyncio.run(asyncio.wait_for(run(), 10))


def test_an_analysis_that_has_begun_waits_for_room_and_is_not_refused(engine, counts):
    async def run():
        async with load(engine, 7):
            how = {"draws": 4, "seed": 7, "temperature": 1.0, "trace": Trace()}
            items, before = await engine.classified([given("factors", 1)], Trace())
            call = asyncio.create_task(engine.respond(items, before, LAYOUT.names, **how))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not call.done()
            assert counts.kept == [7]
        found = await call
        assert before.shape == (1, 2)
        assert [one.factor for one in found] == list(LAYOUT.names)

    asyncio.run(asyncio.wait_for(run(), 10))


def test_an_analysis_lets_other_calls_pass_once_it_draws(engine, monkeypatch):
    seen, queued = [], Stage.__call__

    async def noting(stage, items, *, patient):
        seen.append(patient)
        return await queued(stage, items, patient=patient)

    monkeypatch.setattr(Stage, "__call__", noting)

    async def run():
        trace = Trace()
        items, before = await engine.classified([given("factors", 1)], trace)
        begun = len(seen)
        how = {"draws": 4, "seed": 7, "temperature": 1.0, "trace": trace}
        await engine.respond(items, before, LAYOUT.names, **how)
        assert not any(seen[:begun])
        assert all(seen[begun:])
        assert len(trace.passes) == len(seen) > begun > 0

    asyncio.run(run())


def test_an_analysis_keeps_sums_over_its_draws_and_not_the_draws(engine):
    """Which would be 40 MB of a head with 1,000 classes."""
    weights = np.random.default_rng(0).normal(size=(LAYOUT.size, 1000)).astype(np.float32)

    def classes(latents):
        powers = np.exp(latents @ weights)
        return (powers / powers.sum(axis=1, keepdims=True),)

    engine = Engine(MANIFEST, lambda role, items: (GRAPHS | {"head": classes})[role](items), Compute())

    async def run():
        items, before = await engine.classified([given("factors", 2)], Trace())
        tracemalloc.start()
        how = {"draws": 2500, "seed": 7, "temperature": 1.0, "trace": Trace()}
        found = await engine.respond(items, before, LAYOUT.names, **how)
        return items, found, tracemalloc.get_traced_memory()[1]

    try:
        items, found, peak = asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000
    rows, where = np.tile(items[1], (2500, 1)), LAYOUT.slice("digit")
    rows[:, where] = draw_prior(7, range(2500), LAYOUT.size, purpose=Purpose.RESPONSE)[:, where]
    (drawn,) = classes(rows)
    winners = drawn.argmax(axis=1)
    one = found[LAYOUT.names.index("digit")]
    np.testing.assert_allclose(one.mean_probabilities[1], drawn.mean(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(one.probability_deviations[1], drawn.std(axis=0, dtype=np.float64), rtol=1e-4)
    assert one.class_deviations[1] == pytest.approx(winners.std())
    assert one.class_changes[1] == (winners != 0).mean()  # at the origin all are alike, and the first wins


def test_an_overflow_in_the_log_determinant_alone_is_the_callers_mistake(engine):
    latents = np.zeros((3, LAYOUT.size), np.float32)
    latents[1, 0] = ENDLESS
    parts = [Given("latent", one[None], f"inputs[{index}]") for index, one in enumerate(latents)]
    with pytest.raises(InvalidInput, match="an overflow in the transform") as caught:
        asyncio.run(engine.interpret(parts, Trace()))
    assert caught.value.field == "inputs[1]"
    latents[1] = 0
    assert np.isfinite(asyncio.run(engine.interpret([Given("latent", latents, "inputs")], Trace())).factors).all()
