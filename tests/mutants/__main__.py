"""`make mutants`: break each guard in a copy of the project, and see that a test fails. Exits with 1 if none does."""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SECONDS = 240  # for the tests of one mutant
FAILED = 1  # pytest's exit code when tests ran and some failed; an error at collection is 2


def main() -> int:
    """The number of survivors, as an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", help="these of the list, counted from 1")
    chosen = parser.parse_args().only or range(1, len(MUTANTS) + 1)
    console, survivors = Console(width=140), 0
    table = Table("", "guard that was broken", "noticed by", "s", box=None, pad_edge=False)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "mercato"
        _copy(copy)
        for number in chosen:
            mutant, began = MUTANTS[number - 1], time.monotonic()
            killer = _killer(copy, mutant)
            survivors += not killer
            table.add_row(str(number), mutant.guard, killer or "[red]NOBODY[/]", f"{time.monotonic() - began:.0f}")
            console.print(f"{number:>3} {'killed' if killer else 'SURVIVED'}: {mutant.guard}")
    console.print(table)
    return 1 if survivors else 0


def _copy(to: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def _killer(copy: Path, mutant: Mutant) -> str:
    """The first test that fails with it; empty: it survived."""
    file = copy / mutant.file
    sound = file.read_text()
    file.write_text(sound.replace(mutant.old, mutant.new, 1))
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout", "60"]
        ran = subprocess.run(
            [*command, *mutant.tests], cwd=copy, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    finally:
        file.write_text(sound)
    failed = [line.split(" ")[1] for line in ran.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].removeprefix("tests/") if ran.returncode == FAILED and failed else ""


if __name__ == "__main__":
    sys.exit(main())
