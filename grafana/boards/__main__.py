"""`python grafana/boards`: write every dashboard as JSON into `grafana/dashboards/`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[0] = str(root)
    from boards.files import write

    write(root / "dashboards")
