"""Batching: what waits together runs together, who gave up costs nothing, one caller's trouble is his own."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from iin_service import stage
from iin_service.recording import Recorder
from iin_service.stage import Stage

FORBIDDEN = 13.0


class Doubler:
    """Doubles rows, records every batch, waits at a gate, and refuses batches with a forbidden value."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.batches = []

    def __call__(self, items):
        self.gate.wait(10)
        self.batches.append(items[:, 0].tolist())
        if FORBIDDEN in items:
            raise ArithmeticError("forbidden")
        return (items * 2, items.sum(axis=1))


def make_stage(run, *, max_batch_size=8, recorder=None):
    return Stage(
        {"doubler": run},
        slot=asyncio.Semaphore(1),
        executor=ThreadPoolExecutor(1),
        max_batch_size=max_batch_size,
        recorder=recorder,
    )


def rows(*values):
    return np.array(values, np.float32)[:, None]


async def queued_behind_the_gate(stage, doubler, *parts):
    """A first batch at the gate, and calls with `parts` that wait behind it."""
    doubler.gate.clear()
    first = asyncio.create_task(stage(rows(0)))
    while not stage._slot.locked() or stage.queued_items:
        await asyncio.sleep(0)
    calls = [asyncio.create_task(stage(part)) for part in parts]
    await asyncio.sleep(0)
    return first, calls


def test_a_lone_caller_is_served_alone():
    doubler = Doubler()
    ((doubled, sums),), passes = asyncio.run(make_stage(doubler)(rows(3)))
    assert (doubled, sums) == (6, 3)
    assert [one.batch_size for one in passes] == [1]


def test_everything_that_waits_forms_the_next_batch():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1), rows(2, 3), rows(4))
        doubler.gate.set()
        answers = await asyncio.gather(first, *calls)
        assert doubler.batches == [[0], [1, 2, 3, 4]]
        assert [outputs[0][0][:, 0].tolist() for outputs, _ in answers] == [[0], [2], [4, 6], [8]]
        assert {passes[0].batch_size for _, passes in answers[1:]} == {4}

    asyncio.run(scenario())


def test_a_batch_stays_within_its_limit_and_in_order():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler, max_batch_size=3)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1, 2), rows(3, 4), rows(5))
        doubler.gate.set()
        await asyncio.gather(first, *calls)
        assert doubler.batches == [[0], [1, 2], [3, 4, 5]]

    asyncio.run(scenario())


def test_every_second_batch_takes_streams_last_and_none_waits_for_ever():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler, max_batch_size=4)
        first, _ = await queued_behind_the_gate(stage, doubler)
        streams = [asyncio.create_task(stage(rows(n, n, n), patient=True)) for n in (1, 2)]
        calls = [asyncio.create_task(stage(rows(n, n))) for n in (3, 4, 5, 6, 7, 8)]
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(first, *streams, *calls)
        assert doubler.batches == [[0], [1, 1, 1], [3, 3, 4, 4], [2, 2, 2], [5, 5, 6, 6], [7, 7, 8, 8]]

    asyncio.run(scenario())


def test_calls_that_arrive_over_a_few_turns_of_the_loop_form_one_batch():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)

        async def after(turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            await stage(rows(turns))

        await asyncio.gather(*(after(turns) for turns in (0, 1, 2, 4, 6)))
        assert doubler.batches == [[0, 1, 2, 4, 6]]

    asyncio.run(scenario())


def test_more_items_than_a_batch_holds_come_back_whole():
    items = np.arange(20, 40, dtype=np.float32)[:, None]
    doubler = Doubler()
    ((doubled, _),), passes = asyncio.run(make_stage(doubler, max_batch_size=8)(items))
    np.testing.assert_array_equal(doubled, items * 2)
    assert [one.batch_size for one in passes] == [8, 8, 4]


@pytest.mark.parametrize(("at_once", "in_loop"), [(stage.BYTES_COPIED_AT_ONCE, True), (100, False)])
def test_the_parts_of_a_large_call_alone_are_put_together_outside_the_event_loop(at_once, in_loop, monkeypatch):
    monkeypatch.setattr(stage, "BYTES_COPIED_AT_ONCE", at_once)
    seen, concatenate = [], np.concatenate

    def watched(*arguments):
        seen.append(threading.current_thread() is threading.main_thread())
        return concatenate(*arguments)

    monkeypatch.setattr(np, "concatenate", watched)
    asyncio.run(make_stage(Doubler(), max_batch_size=8)(rows(*range(20, 40))))
    assert seen == [in_loop, in_loop], "one for each output"


def test_the_parts_of_a_large_call_do_not_count_each_other_as_waiting():
    async def scenario():
        stage = make_stage(Doubler(), max_batch_size=2)
        started = time.perf_counter()
        _, passes = await stage(rows(*range(20, 40)))
        total = time.perf_counter() - started
        assert len(passes) == 10
        assert sum(one.queue_seconds + one.compute_seconds for one in passes) <= total

    asyncio.run(scenario())


class Telling(Recorder):
    """Keeps how many items were said to wait."""

    def __init__(self):
        self.waited = [0]

    def waiting(self, stage, change):
        self.waited.append(self.waited[-1] + change)


def test_how_many_wait_is_told_as_a_batch_ends_and_none_at_last():
    async def scenario():
        doubler, telling = Doubler(), Telling()
        stage = make_stage(doubler, max_batch_size=3, recorder=telling)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1, 2), rows(3, 4), rows(5))
        doubler.gate.set()
        await asyncio.gather(first, *calls)
        assert telling.waited == [0, 5, 3, 0]  # [1, 2] goes alone: [3, 4] does not fit beside it

    asyncio.run(scenario())


def test_items_that_leave_while_they_wait_are_told_of():
    async def scenario():
        doubler, telling = Doubler(), Telling()
        stage = make_stage(doubler, max_batch_size=3, recorder=telling)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1, 2), rows(3, 4))
        doubler.gate.set()
        await first
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        for _ in range(20):
            await asyncio.sleep(0)
        assert telling.waited[-1] == 0

    asyncio.run(scenario())


def test_who_waited_is_told_for_how_long():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1), rows(2, 3))
        since = time.perf_counter()
        await asyncio.sleep(0.05)
        waited = time.perf_counter() - since
        doubler.gate.set()
        _, *answers = await asyncio.gather(first, *calls)
        for _, (only,) in answers:
            assert only.queue_seconds >= waited

    asyncio.run(scenario())


def test_who_gave_up_is_never_computed():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1), rows(2, 3), rows(4))
        calls[1].cancel()
        await asyncio.gather(calls[1], return_exceptions=True)
        assert stage.queued_items == 2
        doubler.gate.set()
        await asyncio.gather(first, calls[0], calls[2])
        assert doubler.batches == [[0], [1, 4]]

    asyncio.run(scenario())


def test_all_giving_up_leaves_the_stage_usable():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1))
        for call in (first, *calls):
            call.cancel()
        await asyncio.gather(first, *calls, return_exceptions=True)
        doubler.gate.set()
        ((doubled, _),), _ = await stage(rows(5))
        assert doubled == 10
        assert doubler.batches == [[0], [5]]

    asyncio.run(scenario())


def test_who_gives_up_in_the_turn_in_which_a_batch_is_taken_is_not_computed():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1), rows(2))
        calls[0].cancel()
        stage._waiting[0].done.cancel()  # as a cancelled task does before its own code runs
        assert [part.items[0, 0] for part in stage._take()] == [2]
        calls[1].cancel()
        doubler.gate.set()
        await asyncio.gather(first, *calls, return_exceptions=True)
        assert doubler.batches == [[0]]

    asyncio.run(scenario())


def test_a_graph_that_returns_too_few_rows_harms_no_later_call():
    async def scenario():
        answers = [(np.zeros((0, 1)),), (np.ones((1, 1)),)]
        stage = make_stage(lambda items: answers.pop(0))
        with pytest.raises(RuntimeError, match="expected 1 rows"):
            await stage(rows(1))
        ((values,),), _ = await asyncio.wait_for(stage(rows(2)), 10)
        assert values == 1

    asyncio.run(scenario())


def test_one_callers_failure_leaves_the_others_their_answers():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler)
        first, calls = await queued_behind_the_gate(stage, doubler, rows(1), rows(FORBIDDEN), rows(4))
        doubler.gate.set()
        await first
        good, bad, also_good = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(bad, ArithmeticError)
        assert good[0][0][0] == 2
        assert also_good[0][0][0] == 8

    asyncio.run(scenario())


def test_the_rest_of_a_call_that_failed_is_never_computed():
    async def scenario():
        doubler = Doubler()
        stage = make_stage(doubler, max_batch_size=4)
        with pytest.raises(ArithmeticError, match="forbidden"):
            await stage(rows(FORBIDDEN, *range(20, 31)))
        assert stage.queued_items == 0
        await stage(rows(5))
        assert doubler.batches == [[FORBIDDEN, 20, 21, 22], [5]]

    asyncio.run(scenario())


def test_a_large_call_lets_another_stage_have_its_turn():
    async def scenario():
        doubler = Doubler()
        slot, executor = asyncio.Semaphore(1), ThreadPoolExecutor(1)
        large, other = (
            Stage({name: doubler}, slot=slot, executor=executor, max_batch_size=2) for name in ("large", "other")
        )
        first, calls = await queued_behind_the_gate(large, doubler, rows(*range(20, 60)))
        lone = asyncio.create_task(other(rows(1)))
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(first, lone, *calls)
        assert doubler.batches[:3] == [[0], [1], [20, 21]]
        assert len(doubler.batches) == 22

    asyncio.run(scenario())


def test_stages_that_share_a_slot_take_turns():
    async def scenario():
        doubler = Doubler()
        slot, executor = asyncio.Semaphore(1), ThreadPoolExecutor(4)
        stages = [Stage({name: doubler}, slot=slot, executor=executor, max_batch_size=8) for name in ("one", "other")]
        doubler.gate.clear()
        calls = [asyncio.create_task(stage(rows(index))) for index, stage in enumerate(stages)]
        await asyncio.sleep(0.05)
        assert sum(stage.queued_items for stage in stages) == 1
        doubler.gate.set()
        await asyncio.gather(*calls)
        assert doubler.batches == [[0], [1]]

    asyncio.run(scenario())


def test_graphs_in_a_row_feed_each_other_and_tell_their_times():
    async def scenario():
        doubler = Doubler()
        graphs = {"twice": doubler, "next": lambda items: (items + 1,)}
        stage = Stage(graphs, slot=asyncio.Semaphore(1), executor=ThreadPoolExecutor(1), max_batch_size=2)
        ((doubled, sums), (last,)), passes = await stage(rows(1, 2, 3))
        assert (doubled[:, 0].tolist(), sums.tolist(), last[:, 0].tolist()) == ([2, 4, 6], [1, 2, 3], [3, 5, 7])
        assert [(one.graph, one.batch_size) for one in passes] == [("twice", 2), ("next", 2), ("twice", 1), ("next", 1)]
        assert [one.queue_seconds for one in passes if one.graph == "next"] == [0, 0]

    asyncio.run(scenario())
