"""What starting costs: `import sdg` and `sdg --help`, each in a fresh process, in seconds.

    python benchmarks/bench_import.py [--repeats 15]

Budget: 0.25 s for the import and 0.5 s for the help, of which the interpreter itself takes a part; neither
may load torch.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

IMPORT = "import sdg, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
HELP = (
    "import sys; from sdg.cli import main\n"
    "try: main(['--help'])\n"
    "except SystemExit: assert 'torch' not in sys.modules"
)


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(f"{'':28}{'median':>9}{'best':>9}{'budget':>9}")
    for label, code, budget in (
        ("the interpreter alone", "", None),
        ("import sdg", IMPORT, 0.25),
        ("sdg --help", HELP, 0.5),
    ):
        seconds(code)  # the first run compiles and fills the file cache
        times = [seconds(code) for _ in range(options.repeats)]
        limit = "" if budget is None else f"{budget:.2f} s"
        middle, best = f"{statistics.median(times):.2f} s", f"{min(times):.2f} s"
        print(f"{label:28}{middle:>9}{best:>9}{limit:>9}")


if __name__ == "__main__":
    main()
