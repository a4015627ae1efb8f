"""The engine on a model of numpy functions: who waits under load and who is refused, overflows, samples."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from iin_bundle import FactorLayout, LogLikelihoodQuantiles
from iin_service.edits import draw_prior
from iin_service.engine import Engine
from iin_service.errors import InvalidInput, Overloaded
from iin_service.items import Given, Limits, Trace, Wanted
from iin_service.recording import Silent
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
MANIFEST = SimpleNamespace(
    name="numpy",
    graphs=GRAPHS,
    layout=LAYOUT,
    size=LAYOUT.size,
    log_likelihood_quantiles=LogLikelihoodQuantiles(probabilities=(0.0, 1.0), values=(-100.0, 0.0)),
)


class Counts(Silent):
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
    limits = Limits(max_queued_items=8, max_batch_size=4, samples_per_message=5)
    return Engine(MANIFEST, GRAPHS.__getitem__, limits, counts)


def given(kind, count):
    return Given(kind, np.zeros((count, LAYOUT.size), np.float32), "inputs")


def load(engine, count):
    """While it is entered, a call of `count` items is under way."""
    return engine._graphs.admitted([given("latent", count)], Trace())


def sample(engine, count, *, temperature=1.0, truncation=None):
    how = {"seed": 7, "fixed": [], "wanted": Wanted(images=False), "trace": Trace()}
    return engine.sample(count, temperature=temperature, truncation=truncation, **how)


def traverse(engine, count):
    path = LinearWalk("digit", np.ones(2, np.float32), 1.0)
    return engine.traverse(given("factors", 1), path, None, count, Wanted(images=False), Trace())


def test_patient_calls_leave_half_of_the_room_to_the_others(engine):
    async def run():
        async with load(engine, 4):
            patient = asyncio.create_task(engine.interpret([given("latent", 1)], Trace(patient=True)))
            await asyncio.sleep(0)
            await engine.interpret([given("latent", 4)], Trace())
            assert not patient.done()
        assert len((await patient).factors) == 1

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_patient_call_is_let_into_its_half(engine):
    async def run():
        async with load(engine, 3):
            assert len((await engine.interpret([given("latent", 1)], Trace(patient=True))).factors) == 1

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("parts_of", [sample, traverse])
def test_a_stream_that_has_begun_waits_for_room_and_is_not_refused(parts_of, engine):
    async def run():
        parts = parts_of(engine, 10)
        assert (await anext(parts))[0] == 0
        async with load(engine, 8):
            following = asyncio.create_task(anext(parts))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await anext(parts_of(engine, 10))
            assert not following.done()
        assert (await following)[0] == 5

    asyncio.run(asyncio.wait_for(run(), 10))


def test_an_analysis_that_has_begun_waits_for_room_and_is_not_refused(engine, counts):
    async def run():
        async with load(engine, 7):
            how = {"draws": 4, "seed": 7, "temperature": 1.0, "trace": Trace()}
            call = asyncio.create_task(engine.respond([given("factors", 1)], LAYOUT.names, **how))
            while counts.kept != [7, 8, 7]:  # its own item comes and goes, its draws are next
                assert not call.done()
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not call.done()
        before, found = await call
        assert before.shape == (1, 2)
        assert [one.factor for one in found] == list(LAYOUT.names)

    asyncio.run(asyncio.wait_for(run(), 10))


def test_an_overflow_in_the_log_determinant_alone_is_the_callers_mistake(engine):
    latents = np.zeros((3, LAYOUT.size), np.float32)
    latents[1, 0] = ENDLESS
    parts = Given.joined([Given("latent", one[None], f"inputs[{index}]") for index, one in enumerate(latents)])
    with pytest.raises(InvalidInput, match="an overflow in the transform") as caught:
        asyncio.run(engine.interpret([parts], Trace()))
    assert caught.value.field == "inputs[1]"
    latents[1] = 0
    assert np.isfinite(asyncio.run(engine.interpret([Given("latent", latents, "inputs")], Trace())).factors).all()


def test_samples_are_truncated_draws_times_the_temperature(engine):
    async def run():
        parts = sample(engine, 8, temperature=2.0, truncation=0.5)
        return np.concatenate([found.factors async for _, found, _ in parts])

    drawn = draw_prior(7, range(8), LAYOUT.size, truncation=0.5)
    np.testing.assert_array_equal(asyncio.run(run()), np.float32(2) * drawn)
