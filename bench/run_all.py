"""Every measurement that a claim of this project rests on, one after the other: `make bench`.

`--quick` leaves out those that take minutes. Each is a command of its own: `python bench/NAME.py [--json FILE]`.
"""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent
QUICK = ("scrape", "database_time")
SLOW = ("recording", "simulator_reality", "footprint", "page_latency", "first_signal", "faults", "sight")


def main() -> int:
    """Run the benches and return 3 when one of them could not measure."""
    names = QUICK if "--quick" in sys.argv[1:] else QUICK + SLOW
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(BENCH / f"{name}.py")], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"could not measure: {', '.join(failed)}", file=sys.stderr)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
