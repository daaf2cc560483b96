"""`python bench/detection`: puts the folders of this package and of the simulator on the path, and runs the command."""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[0] = str(root / "bench")
    sys.path.append(str(root / "tests"))
    from detection.run import main

    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it; what was played so far is not a table
