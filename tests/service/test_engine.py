"""The engine on a real bundle: each way in leads to the same factors, alone and in company."""

import asyncio
import dataclasses
import threading

import numpy as np
import pytest
from iin_service import engine as engines
from iin_service.edits import Edit, Replace, Resample, SetValue, Shift
from iin_service.engine import Engine
from iin_service.errors import InvalidInput, Unsupported
from iin_service.graphs import Compute
from iin_service.items import Given, Held, Limits, Trace, Wanted
from iin_service.recording import Recorder
from iin_service.sessions import Sessions
from iin_service.stage import Stage
from iin_service.walks import LinearWalk


@pytest.fixture(scope="module", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def sessions(request, bundle):
    return Sessions(bundle, threads=1, gpu=request.param == "gpu")


@pytest.fixture
def engine(bundle, sessions):
    return Engine(bundle.manifest, sessions.run, Compute(Limits(max_batch_size=16)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (6, 3, 32, 32)).astype(np.float32)


def interpret(engine, *given):
    return asyncio.run(engine.interpret(list(given), Trace()))


def edit(engine, targets, *edits):
    return asyncio.run(engine.edit([targets], list(edits), Wanted(), Trace()))


async def part(first, found, trace):
    """What is made of a part of a stream."""
    return first, found


def held(layout, index, name, value):
    """A fixed factor as requests have it."""
    return Held(layout.slice(name), value, value.field if isinstance(value, Given) else f"fixed[{index}].set.values")


def sample(engine, count, fixed=(), temperature=1.0, seed=7, truncation=None, trace=None, size=5):
    fixed = [held(engine.layout, index, *one) for index, one in enumerate(fixed)]

    async def collect():
        parts = engine.sample(
            count,
            size=size,
            seed=seed,
            temperature=temperature,
            truncation=truncation,
            held=await engine.held(fixed, trace or Trace()),
            wanted=Wanted(),
            trace=trace or Trace(),
            write=part,
        )
        return [await make() for make in parts]

    return asyncio.run(collect())


def test_a_stream_lets_other_calls_pass_after_its_first_part(engine, monkeypatch):
    seen = []

    async def noting(stage, items, *, patient):
        seen.append(patient)
        return await queued(stage, items, patient=patient)

    queued = Stage.__call__
    monkeypatch.setattr(Stage, "__call__", noting)
    sample(engine, 15, size=5)
    assert seen == [False, True, True]


def test_the_log_likelihood_is_the_priors_density_and_the_volume(engine, bundle, images):
    found = interpret(engine, Given("image", images, "inputs"))
    size = bundle.manifest.size
    matrix = np.eye(size)
    # log|det T'(z)| of the first image, by central differences around its latent
    step = 1e-2
    latents = found.latents[0] + step * np.concatenate([matrix, -matrix]).astype(np.float32)
    moved = interpret(engine, Given("latent", latents, "inputs")).factors.astype(np.float64)
    jacobian = (moved[:size] - moved[size:]) / (2 * step)
    prior = -0.5 * (np.square(found.factors[0].astype(np.float64)).sum() + size * np.log(2 * np.pi))
    assert found.log_likelihoods[0] == pytest.approx(prior + np.linalg.slogdet(jacobian)[1], abs=0.05)
    assert ((found.quantiles >= 0) & (found.quantiles <= 1)).all()


def test_what_is_of_one_kind_passes_the_graphs_together_wherever_it_stands(engine, images):
    whole, trace = interpret(engine, Given("image", images, "inputs")), Trace()
    kinds = {"image": images, "latent": whole.latents, "factors": whole.factors}
    given = [Given(kind, kinds[kind][index : index + 1], "inputs") for index, kind in enumerate([*kinds] * 2)]

    async def run():
        return await engine.interpret(given, trace), await engine.factors(given, Trace())

    found, factors = asyncio.run(run())
    np.testing.assert_allclose(found.latents, whole.latents, atol=1e-4)
    np.testing.assert_allclose(found.factors, whole.factors, atol=1e-4)
    np.testing.assert_allclose(factors, whole.factors, atol=1e-4)
    np.testing.assert_allclose(found.log_likelihoods, whole.log_likelihoods, atol=1e-2)
    np.testing.assert_allclose(found.quantiles, whole.quantiles, atol=1e-4)
    passed = sorted((one.graph, one.batch_size) for one in trace.passes)
    assert passed == [("encoder", 2), ("inverse", 2), ("transform", 2), ("transform", 2)]


def test_a_crowd_gets_the_answers_of_lone_callers(engine, images):
    async def crowd():
        calls = [engine.interpret([Given("image", images[i % 6][None], "inputs")], Trace()) for i in range(40)]
        return await asyncio.gather(*calls)

    alone = interpret(engine, Given("image", images, "inputs")).factors
    for index, found in enumerate(asyncio.run(crowd())):
        np.testing.assert_allclose(found.factors[0], alone[index % 6], atol=1e-4)


def test_an_overflow_harms_its_own_call_only(engine, images, bundle):
    async def together():
        good = engine.interpret([Given("image", images, "inputs")], Trace())
        huge = np.full((1, *bundle.manifest.latent_shape), 3e38, np.float32)
        bad = engine.interpret([Given("latent", huge, "inputs[0].latent")], Trace())
        return await asyncio.gather(good, bad, return_exceptions=True)

    good, bad = asyncio.run(together())
    assert np.isfinite(good.factors).all()
    assert isinstance(bad, InvalidInput)
    assert bad.field == "inputs[0].latent"


def test_an_overflow_in_a_joined_list_names_its_item(engine, images, bundle):
    latents = np.zeros((1, *bundle.manifest.latent_shape), np.float32)
    given = [Given("latent", latents + value, f"inputs[{index}].latent") for index, value in enumerate((0, 3e38, 1))]
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(engine.interpret(given, Trace()))
    assert caught.value.field == "inputs[1].latent"
    factors = Given("factors", np.full((2, bundle.manifest.size), 3e38, np.float32), "targets[1].factors")
    targets, resample = [Given("image", images[:1], "targets[0]"), factors], Edit("digit", Resample(0, 1.0))
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(engine.edit(targets, [resample], Wanted(), Trace()))
    assert caught.value.field == "targets[1].factors"


def test_an_overflow_that_an_edit_or_a_fixed_factor_makes_is_not_blamed_on_anything_else(engine, images, bundle):
    huge = np.full(bundle.manifest.layout.size_of("colour"), 3e38, np.float32)
    with pytest.raises(InvalidInput) as caught:
        edit(engine, Given("image", images, "targets"), Edit("colour", SetValue(huge)))
    assert caught.value.field == "edits"
    edits = [
        Edit("digit", Resample(0, 1.0), "edits[0]"),
        Edit("colour", SetValue(huge), "edits[1]"),
        Edit("digit", Resample(0, 2.0), "edits[2]"),
    ]
    with pytest.raises(InvalidInput) as caught:
        edit(engine, Given("image", images, "targets"), *edits)
    assert caught.value.field == "edits[1]"
    with pytest.raises(InvalidInput) as caught:
        sample(engine, 2, fixed=[("colour", huge)])
    assert caught.value.field == "fixed[0].set.values"


@pytest.mark.parametrize(
    ("edits", "field"),
    [
        ([("residual", SetValue, 5e37), ("digit", SetValue, 0)], "edits[0]"),  # 1e38 of the target is gone
        ([("digit", SetValue, 5e37), ("colour", SetValue, 0)], "edits[0]"),
        ([("digit", SetValue, 1), ("digit", Shift, 2e38), ("colour", SetValue, 0)], "edits[1]"),
        ([("digit", Shift, 1e36)], "targets[0].factors"),  # next to 1e38 nothing
        ([("digit", SetValue, -3e38)], "edits[0]"),  # the change is more than 32 bits hold
        ([("digit", Replace, 3e38)], "edits[0]"),
        ([("digit", Replace, 1e37)], "targets[0].factors"),  # of 1e38 half is left
        ([("residual", SetValue, 1), ("colour", Shift, 1)], "targets[0].factors"),
    ],
)
def test_an_overflow_is_blamed_on_the_last_edit_of_the_factor_with_the_largest_value(edits, field, engine, bundle):
    layout = bundle.manifest.layout

    def pending(index, factor, kind, value):
        values = np.full(layout.size_of(factor), value, np.float32)
        if kind is Replace:
            source = Given("factors", np.full((1, layout.size), value, np.float32), "source")
            return Edit(factor, Replace(source, 0.5), f"edits[{index}]")
        if kind is Shift:
            direction = np.zeros_like(values)
            direction[0] = 1
            return Edit(factor, Shift(direction, value), f"edits[{index}]")
        return Edit(factor, SetValue(values), f"edits[{index}]")

    factors = np.zeros((1, layout.size), np.float32)
    factors[:, layout.slice("digit")] = 1e38
    with pytest.raises(InvalidInput) as caught:
        edit(
            engine, Given("factors", factors, "targets[0].factors"), *(pending(i, *one) for i, one in enumerate(edits))
        )
    assert caught.value.field == field


def test_an_overflow_of_a_sample_is_blamed_on_its_largest_part(engine, bundle):
    layout = bundle.manifest.layout
    zeros = np.zeros(layout.size_of("digit"), np.float32)
    huge = Given("factors", np.full((1, layout.size), 3e38, np.float32), "fixed[1].source.factors")

    def blamed(fixed, temperature):
        with pytest.raises(InvalidInput) as caught:
            sample(engine, 3, fixed, temperature)
        return caught.value.field

    assert blamed([("digit", zeros)], 1e38) == "temperature"
    assert blamed([("digit", zeros), ("colour", huge)], 1.0) == "fixed[1].source.factors"
    assert blamed([("digit", zeros), ("colour", np.full(layout.size_of("colour"), 3e38, np.float32))], 1e30) == (
        "fixed[1].set.values"
    )


def test_a_factor_drawn_anew_is_not_the_sample_of_its_seed(engine, bundle):
    where = bundle.manifest.layout.slice("digit")
    ((_, drawn),) = sample(engine, 5, seed=0)
    found = edit(engine, Given("factors", drawn.factors, "targets"), Edit("digit", Resample(0, 1.0)))
    assert (found.factors[:, where] != drawn.factors[:, where]).all()


@pytest.mark.parametrize(("value", "distance", "field"), [(3e38, 1.0, "start"), (0.0, 3e38, "linear.distance")])
def test_an_overflow_on_a_path_is_blamed_on_what_is_too_large(value, distance, field, engine, bundle):
    start = Given("factors", np.full((1, bundle.manifest.size), value, np.float32), "start")
    path = LinearWalk("colour", np.ones(bundle.manifest.layout.size_of("colour"), np.float32), -distance)

    async def follow():
        frames = engine.traverse(start.items, path, 8, size=5, wanted=Wanted(), trace=Trace(), write=part)
        return [await make() for make in frames]

    with pytest.raises(InvalidInput) as caught:
        asyncio.run(follow())
    assert caught.value.field == field


def test_replacing_by_itself_reconstructs(engine, sessions, images):
    given = Given("image", images, "targets")
    found = edit(engine, given, Edit("digit", Replace(given, 1.0)))
    expected = sessions.run("decoder", sessions.run("encoder", images)[0])[0]
    np.testing.assert_allclose(found.images, expected, atol=1e-3)


def test_edits_apply_in_order(engine, bundle, images):
    size = bundle.manifest.layout.size_of("digit")
    zeros = Edit("digit", SetValue(np.zeros(size, np.float32)))
    drawn = Edit("digit", Resample(3, 1.0))
    where = bundle.manifest.layout.slice("digit")
    targets = Given("image", images, "targets")
    assert (edit(engine, targets, drawn, zeros).factors[:, where] == 0).all()
    assert (edit(engine, targets, zeros, drawn).factors[:, where] != 0).all()


def test_one_source_serves_all_targets(engine, bundle, images):
    source = Given("image", images[:1], "source")
    found = edit(engine, Given("image", images, "targets"), Edit("colour", Replace(source, 1.0)))
    colour = found.factors[:, bundle.manifest.layout.slice("colour")]
    np.testing.assert_allclose(colour, np.broadcast_to(colour[:1], colour.shape), atol=1e-5)


def test_a_source_of_several_edits_is_interpreted_once(bundle, sessions, images):
    engine = Engine(bundle.manifest, sessions.run, Compute())
    source, trace = Given("image", images[::-1].copy(), "source"), Trace()
    edits = [Edit(name, Replace(source, 1.0)) for name in bundle.manifest.layout.names]
    found = asyncio.run(engine.edit([Given("image", images, "targets")], edits, Wanted(), trace))
    assert [one.batch_size for one in trace.passes if one.graph == "encoder"] == [12]
    np.testing.assert_allclose(found.factors, interpret(engine, source).factors, atol=1e-4)


def test_sources_of_several_edits_keep_apart(engine, bundle, images):
    names = ("digit", "colour")
    sources = [Given("image", images[index : index + 1], f"edits[{index}]") for index in range(2)]
    edits = [Edit(name, Replace(one, 1.0)) for name, one in zip(names, sources, strict=True)]
    found = edit(engine, Given("image", images[2:3], "targets"), *edits)
    for name, one in zip(names, sources, strict=True):
        where = bundle.manifest.layout.slice(name)
        np.testing.assert_allclose(found.factors[:, where], interpret(engine, one).factors[:, where], atol=1e-4)


def test_a_sample_is_the_same_whatever_it_is_drawn_with(engine):
    many, few = sample(engine, 13), sample(engine, 3)
    assert [first for first, _ in many] == [0, 5, 10]
    np.testing.assert_array_equal(few[0][1].factors, many[0][1].factors[:3])
    np.testing.assert_allclose(few[0][1].images, many[0][1].images[:3], atol=1e-5)
    assert not np.array_equal(sample(engine, 3, seed=8)[0][1].factors, few[0][1].factors)


def test_fixed_factors_are_held_and_temperature_zero_is_the_mean(engine, bundle, images):
    where = bundle.manifest.layout.slice("colour")
    values = np.ones(where.stop - where.start, np.float32)
    ((_, found),) = sample(engine, 4, fixed=[("colour", values)], temperature=0.0)
    assert (found.factors[:, where] == 1).all()
    assert (np.delete(found.factors, range(where.start, where.stop), axis=1) == 0).all()
    source = Given("image", images[:1], "fixed[0].source")
    ((_, found),) = sample(engine, 4, fixed=[("colour", source)])
    expected = interpret(engine, source).factors[0, where]
    np.testing.assert_allclose(found.factors[:, where], np.broadcast_to(expected, (4, len(expected))), atol=1e-5)


def test_sources_of_fixed_factors_go_through_the_graphs_together(engine, bundle, images):
    trace, layout = Trace(), bundle.manifest.layout
    sources = [Given("image", images[index : index + 1], f"fixed[{index}].source") for index in range(2)]
    values = np.ones(layout.size_of("residual"), np.float32)
    fixed = [("digit", sources[0]), ("residual", values), ("colour", sources[1])]
    ((_, found),) = sample(engine, 3, fixed=fixed, trace=trace)
    assert [one.batch_size for one in trace.passes if one.graph == "encoder"] == [2]
    assert (found.factors[:, layout.slice("residual")] == 1).all()
    for name, source in (("digit", sources[0]), ("colour", sources[1])):
        where = layout.slice(name)
        expected = np.tile(interpret(engine, source).factors[:, where], (3, 1))
        np.testing.assert_allclose(found.factors[:, where], expected, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_a_temperature_that_overflows_is_the_callers_mistake_and_prints_nothing(engine):
    with pytest.raises(InvalidInput) as caught:
        sample(engine, 5, temperature=3e38)
    assert caught.value.field == "temperature"


@pytest.fixture
def aside(monkeypatch):
    """For each call of a function of the engine's whether it was made outside the event loop."""

    def watch(name):
        seen, function = [], getattr(engines, name)

        def watched(*arguments):
            seen.append(threading.current_thread() is not threading.main_thread())
            return function(*arguments)

        monkeypatch.setattr(engines, name, watched)
        return seen

    return watch


def test_what_takes_long_to_draw_is_not_drawn_in_the_event_loop(engine, sessions, bundle, aside):
    seen = aside("draw_prior")
    sample(engine, 5)
    sample(engine, 1, truncation=0.1)
    assert seen == [False, True]
    sample(engine, 64, size=64)
    assert seen == [False, True, True]


def test_what_takes_long_to_edit_is_not_edited_in_the_event_loop(engine, bundle, aside):
    seen = aside("change")
    resample = Edit("digit", Resample(0, 1.0))
    targets = Given("factors", np.zeros((64, bundle.manifest.size), np.float32), "targets")
    edit(engine, dataclasses.replace(targets, items=targets.items[:1]), resample)
    edit(engine, targets, resample, resample)
    assert seen == [False, True, True]


def test_images_alone_tell_of_drift(bundle, sessions, images):
    class Noting(Recorder):
        noted = ()

        def likelihoods(self, quantiles):
            self.noted = (*self.noted, quantiles.tolist())

    recorder = Noting()
    engine = Engine(bundle.manifest, sessions.run, Compute(recorder=recorder))
    latent = np.zeros((2, *bundle.manifest.latent_shape), np.float32)
    given = [Given("image", images[:2], "a"), Given("latent", latent, "b"), Given("image", images[2:], "c")]
    quantiles = interpret(engine, *given).quantiles.tolist()
    assert recorder.noted == ([*quantiles[:2], *quantiles[4:]],)


def test_a_model_without_decoder_interprets_and_refuses_the_rest(bundle, sessions, images):
    graphs = {role: graph for role, graph in bundle.manifest.graphs.items() if role != "decoder"}
    engine = Engine(dataclasses.replace(bundle.manifest, graphs=graphs), sessions.run, Compute())
    assert interpret(engine, Given("image", images, "inputs")).factors.shape == (6, bundle.manifest.size)
    engine.check(Wanted(images=False))
    with pytest.raises(Unsupported, match="no decoder"):
        engine.check(Wanted())


def test_a_head_adds_class_probabilities(bundle, sessions, images):
    def run(role, items):
        return (np.stack([items[:, 0], 1 - items[:, 0]], axis=1),) if role == "head" else sessions.run(role, items)

    graphs = bundle.manifest.graphs | {"head": bundle.manifest.graphs["encoder"]}
    manifest = dataclasses.replace(bundle.manifest, graphs=graphs)
    engine = Engine(manifest, run, Compute())
    found = interpret(engine, Given("image", images, "inputs"))
    np.testing.assert_allclose(found.probabilities[:, 0], found.latents[:, 0], atol=1e-6)


def test_the_trace_tells_every_stage(engine, images):
    trace = Trace()
    asyncio.run(engine.edit([Given("image", images, "t")], [Edit("digit", Resample(0, 1.0))], Wanted(), trace))
    assert [one.graph for one in trace.passes] == ["encoder", "transform", "inverse", "decoder"]
    assert {one.batch_size for one in trace.passes} == {6}
