"""What can befall the daemon and its servers, made for real, and what is measured meanwhile.

`stand` sets up one daemon with two servers, A to be broken and B to be left alone; `faults` breaks A; `witness` counts
from outside (our sessions as the system sees them, scrapes, ticks of B). Tests and `bench/faults.py` both use it.
"""
