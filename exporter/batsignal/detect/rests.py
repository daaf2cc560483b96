"""Since when a client has left its session unused, and for how long it had when it used it again.

Owns what counts as a rest: PostgreSQL shows states, and of a COPY one row does not tell. It remembers nothing and
judges nobody; time is an argument.
"""

from batsignal.detect.tracks import Track
from batsignal.snapshot import Session


def resting_since(session: Session) -> float | None:
    """Return since when the client has left a session unused, in Unix seconds; None while the server works for it.

    Idle, idle in transaction, and `active` in a wait for the client (a result nobody reads) are all the same to a
    pool: taken, and nothing done with it. Of a COPY that waits for its client one row does not tell (`rest_of`).
    """
    state = session.state
    if state is None:
        return None
    if state == "idle" or state.startswith("idle"):  # nearly every row is just that, and told at once
        return session.state_change
    if state == "active" and session.wait_event == "ClientRead" and not is_copy_text(session.query):
        return session.state_change
    return None


def rest_of(track: Track, session: Session, t: float) -> float | None:
    """Return since when a track that shows this row now has rested.

    A COPY that is being fed waits for its client too, but not at each look: it rests since the look from which on it
    was seen to do nothing but wait.
    """
    if session.state != "active" or session.wait_event != "ClientRead" or not is_copy_text(session.query):
        return resting_since(session)
    before = track.session
    was_waiting = before is not session and before.state == "active" and before.wait_event == "ClientRead"
    return track.resting_since if was_waiting and before.query_start == session.query_start else t


def is_copy_text(query: str | None) -> bool:
    """Return whether a statement is a COPY, of which one row does not tell whether its client still feeds it."""
    return query is not None and query[:4].casefold() == "copy"


def rest_before_use(rested_at: float | None, now: Session, t: float) -> float:
    """Return how long a session had been left unused when it was used again; 0 when it was not."""
    if rested_at is None or now.state_change is None:
        return 0.0
    if now.state_change <= rested_at:
        # The client of a COPY has sent more of it.
        return t - rested_at if is_copy_text(now.query) and now.wait_event != "ClientRead" else 0.0
    used_at = now.state_change
    if now.query_start is not None and rested_at < now.query_start < used_at:
        used_at = now.query_start
    return used_at - rested_at
