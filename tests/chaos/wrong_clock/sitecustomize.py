"""On PYTHONPATH, this sets the clock of a Python program wrong by WRONG_BY_SECONDS before anything else of it runs."""

import os
from datetime import UTC, datetime, timedelta

import time_machine

time_machine.travel(datetime.now(UTC) + timedelta(seconds=float(os.environ["WRONG_BY_SECONDS"])), tick=True).start()
