"""The folder of the recordings that the daemon keeps by itself: where each lies in it, and how long it stays.

One file for each incident that is over, and one folder for each server's ring of the last minutes. Owns names and
deletion, so that who writes (`flight`), who answers for the past (`history`) and who clears up (`keeper`) agree. It
must not know what is in a recording.
"""

import contextlib
import hashlib
import re
from pathlib import Path


def recordings_folder(store: Path) -> Path:
    """Return the folder of the recordings, beside the store."""
    return store.with_name(f"{store.name}.recordings")


def recording_path(folder: Path, incident: str) -> Path:
    """Return where an incident's recording is kept once it is over."""
    return folder / f"{incident}.jsonl.gz"


def ring_folder(folder: Path, server: str) -> Path:
    """Return where a server's ring is, whatever its name is made of."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", server)[:40]
    return folder / f"ring-{name}-{hashlib.sha256(server.encode('utf-8', 'replace')).hexdigest()[:8]}"


def prune_recordings(folder: Path, *, keep_days: float, bytes_most: int, now: float) -> int:
    """Delete what is older than `keep_days` and the oldest beyond the bound; return the bytes that are left.

    What ended lately is the last to go. Raises OSError.
    """
    kept = []
    for path in [*folder.glob("*.jsonl.gz"), *folder.glob("ring-*/*")]:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            kept.append((found.st_mtime, found.st_size, path))
    left = sum(size for _, size, _ in kept)
    for written, size, path in sorted(kept, key=lambda one: one[:2]):
        is_ring = path.parent != folder
        if written < now - keep_days * 86_400 or (left > bytes_most and not is_ring):
            path.unlink(missing_ok=True)
            left -= size
    for ring in folder.glob("ring-*"):
        with contextlib.suppress(OSError):  # only an empty one goes
            if ring.stat().st_mtime < now - keep_days * 86_400:
                ring.rmdir()
    return left
