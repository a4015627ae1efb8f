"""A progress bar that is shown only for what takes longer than two seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["late_bar"]

SILENT_SECONDS = 2.0  # before a bar is worth showing


@contextmanager
def late_bar(name: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show a bar once this block has taken two seconds, until its end.

    Args:
        name: what is done, a word or two.
        total: items to do.
        console: shows the bar.

    Yields:
        What to call with the number of items done since it was called last.

    """
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True)
    task, started = progress.add_task(name, total=total), time.monotonic()

    def advance(count: int) -> None:
        progress.advance(task, count)
        if time.monotonic() - started > SILENT_SECONDS:
            progress.start()

    try:
        yield advance
    finally:
        if progress.live.is_started:  # to stop another would end a line in a file
            progress.stop()
