"""`make bench-detection`: every row of the catalogue in many variations, judged by us and by the stock rules.

A table on standard output, progress on standard error. Exit 0 whatever the numbers say, 1 when a scenario could not be
played (the others are), 2 for a wrong argument.
"""

import argparse
import difflib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from batsignal.drills.catalogue import ROWS
from detection import show
from detection.summary import SECTIONS, RowSummary, stock_sums, sum_of, summarise_all
from detection.table import sums, table
from detection.variation import Variation, run_variation

FORMAT = "batsignal-bench-detection"
VERSION = 1
VARIATIONS = 20
QUICK_VARIATIONS = 2
JOBS = 2
PROGRESS_SECONDS = 10.0

Task = tuple[str, int, bool]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _options(arguments)
    if options.show is not None:
        return show.show(*options.show, quick=options.quick)
    if options.write is not None:
        return show.write(*options.write, quick=options.quick)
    began = time.monotonic()
    tasks = [
        (row, seed, options.quick)
        for seed in range(options.seed, options.seed + options.variations)
        for row in options.rows
    ]
    variations = list(_played(tasks, options.jobs))
    rows = summarise_all(variations)
    elapsed_seconds = time.monotonic() - began
    if options.output is not None:
        report = report_json(rows, variations, quick=options.quick, elapsed_seconds=elapsed_seconds)
        options.output.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    if options.picture is not None:
        from detection.picture import draw  # noqa: PLC0415 - takes a second, and not everybody wants it

        draw(rows, options.picture)
    print(f"{table(rows)}\n\n{sums(rows)}")
    print(f"\n{len(variations)} variations in {elapsed_seconds:.0f} s with {options.jobs} jobs", flush=True)
    return _tell_failures(variations)


def report_json(
    rows: Sequence[RowSummary], variations: Sequence[Variation], *, quick: bool, elapsed_seconds: float
) -> dict[str, Any]:
    """Return everything: the rows, the sums, and each variation with what was said and what was true."""
    order = {name: n for n, name in enumerate(ROWS)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "quick": quick,
        "elapsed_seconds": round(elapsed_seconds, 1),
        "rows": [row.as_json() for row in rows],
        "sum": {
            "ours": {section: sum_of(section, rows).as_json() for section in SECTIONS},
            "stock": [one.as_json() for one in stock_sums(rows)],
        },
        "variations": [one.as_json() for one in sorted(variations, key=lambda one: (order[one.row], one.seed))],
    }


def _played(tasks: Sequence[Task], jobs: int) -> Iterator[Variation]:
    """Yield each task's variation as it is done."""
    progress = _Progress(len(tasks))
    for variation in map(_play, tasks) if jobs == 1 else _played_beside(tasks, jobs):
        progress.add(variation)
        yield variation


def _played_beside(tasks: Sequence[Task], jobs: int) -> Iterator[Variation]:
    """Play in processes of their own; those that a dying process takes with it come back as failed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as processes:
        futures = {processes.submit(_play, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                row, seed, _ = futures[future]
                yield _result(future, row, seed)
        except BaseException:
            # Whoever is ended in the middle does not wait for plays that nobody will see.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Variation], row: str, seed: int) -> Variation:
    try:
        return future.result()
    except BrokenExecutor as exc:
        return Variation(row=row, seed=seed, error=f"the process died, of this or another scenario: {exc}")


def _end_with_parent() -> None:
    """Let Ctrl-C end a process in the middle of a play, without a traceback of each; and whatever ends its parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _play(task: Task) -> Variation:
    row, seed, quick = task
    return run_variation(row, seed, quick=quick)


class _Progress:
    """Tells standard error now and then how far it is, and of each failure at once."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = self._told = time.monotonic()

    def add(self, variation: Variation) -> None:
        self._done += 1
        if variation.error is not None:
            reason = variation.error.strip().splitlines()[-1]
            print(f"{variation.row} {variation.seed} FAILED: {reason}", file=sys.stderr, flush=True)
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS or self._done == self._total:
            self._told = now
            left = (now - self._began) / self._done * (self._total - self._done)
            print(f"{self._done}/{self._total} variations, about {left:.0f} s left", file=sys.stderr, flush=True)


def _tell_failures(variations: Sequence[Variation]) -> int:
    rows: dict[str, list[str]] = {}
    for one in variations:
        if one.error is not None:
            rows.setdefault(one.error, []).append(f"{one.row} {one.seed}")
    for error, names in rows.items():
        print(f"\ncould not be played: {', '.join(sorted(names))}\n{error}", file=sys.stderr)
    return 1 if rows else 0


def _row(name: str) -> str:
    if name in ROWS:
        return name
    close = difflib.get_close_matches(name, ROWS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"rows are {', '.join(ROWS)}"
    raise argparse.ArgumentTypeError(f"no row is called {name!r}; {hint}")


def _rows(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected the name of one row at least")
    return [_row(name) for name in dict.fromkeys(names)]


def _seed(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 on, not {text!r}")


def _at_least_one(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")
    return number


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file that can be written: its folder must exist")
    return path


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/detection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--variations", type=_at_least_one, help=f"of each row ({VARIATIONS}; with --quick {QUICK_VARIATIONS})")
    add("--rows", type=_rows, default=list(ROWS), metavar="ROW[,ROW...]", help="only these (all of the catalogue)")
    add("--seed", type=_seed, default=0, help="of each row's first variation; the next has the next (0)")
    add("--quick", action="store_true", help=f"{QUICK_VARIATIONS} variations, pure waiting shortened")
    add("--jobs", type=_at_least_one, default=JOBS, help=f"processes ({JOBS})")
    add("--output", type=_file, metavar="FILE.json", help="write everything here, each variation too")
    add("--picture", type=_file, metavar="FILE.png", help="draw it")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--show", nargs=2, metavar=("ROW", "SEED"), help="print what was said and what was true of one")
    one.add_argument("--write", nargs=3, metavar=("ROW", "SEED", "FILE"), help="write one as a recording and its truth")
    options = parser.parse_args(arguments)
    options.variations = options.variations or (QUICK_VARIATIONS if options.quick else VARIATIONS)
    try:
        if options.show:
            options.show = (_row(options.show[0]), _seed(options.show[1]))
        if options.write:
            options.write = (_row(options.write[0]), _seed(options.write[1]), _file(options.write[2]))
    except argparse.ArgumentTypeError as exc:
        parser.error(str(exc))
    return options
