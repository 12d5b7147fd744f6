"""The arithmetic of the benchmarks: medians, percentiles, bars, and CPU time of a family of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import cpu_seconds, machine
from bench.report import Bar, Summary, bars, percentile, write_json

BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_a_summary_is_the_median_with_its_spread() -> None:
    assert Summary.of([3.0, 1.0, 10.0]) == Summary(median=3.0, least=1.0, most=10.0)
    assert str(Summary.of([1234.5])) == "1,234.5 (1,234.5 to 1,234.5)"


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 51), (0.95, 96), (0.99, 100), (1, 100)])
def test_a_percentile_is_one_of_the_figures(share: float, wanted: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == wanted


def test_a_bar_that_is_missed_fails_the_run() -> None:
    assert bars([Bar("rate", 0.6, 0.6), Bar("milliseconds", 9.9, 10, at_most=True)])
    assert not bars([Bar("rate", 0.59, 0.6), Bar("other", 1, 0.5)])
    assert not bars([Bar("milliseconds", 10.1, 10, at_most=True)])


def test_cpu_time_counts_children_that_have_ended() -> None:
    before = cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert cpu_seconds([os.getpid()]) - before >= 0.25


def test_a_process_that_has_gone_has_used_nothing_more() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert cpu_seconds([gone.pid]) == 0


def test_figures_are_written_with_what_they_were_measured_on(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "figures.json", {"oversold": 0})
    written = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert written["oversold"] == 0
    assert written["machine"] == machine()
    assert "temporalio" in written["versions"]
