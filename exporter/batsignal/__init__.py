"""BatSignal: who is eating the connections of a PostgreSQL server, since when, and what to undo.

The flow, one way:

    poll/     talks to the world and returns one frozen `Snapshot` a tick
    detect/   turns a window of snapshots into findings, without a clock and without I/O
    record/   folds findings into signals and swaps in one immutable `Board`
    expose/   serves the board as metrics, JSON and a page
    alerts/   (beside the package) pages a person

Start reading at `tick.py`.
"""

__version__ = "0.1.0"
