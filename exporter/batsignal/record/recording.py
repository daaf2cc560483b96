"""The recording format: JSON Lines, a header and then one line a tick, optionally gzipped (version 1).

What a live run saw, to be judged again by the very same code. This is its public face; reading is in
`recording_reader`, writing in `recording_writer`, the lines between them in `recording_lines`, `recording_rows` and
`recording_fields`. Beyond the keys that the format promises, ours carry what else the judges read or a reader may want:

- in the header `application_pattern`; in the header, and in a tick that changes them, `privileged` and `role`;
- in a tick `own_sessions`: our own seats, which are in no row; in its probes `at`, `reason`, `phases`, `tls_expiry`;
  in its deploys `previous`.

How long each poller took is not kept. Thresholds need no place: they are not configurable.
"""

from batsignal.record.recording_format import FORMAT, VERSION, Header, RecordingError, ServerFacts
from batsignal.record.recording_reader import read
from batsignal.record.recording_writer import KEY_SECONDS, RecordingWriter

__all__ = ["FORMAT", "KEY_SECONDS", "VERSION", "Header", "RecordingError", "RecordingWriter", "ServerFacts", "read"]
