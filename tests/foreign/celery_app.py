"""A Celery application as a team has it: nothing in it knows of Leveret.

`BROKER_URLS` names the brokers, with semicolons between them, as Celery's failover wants it; every
run of a task is noted in the file `RUNS`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import celery

app = celery.Celery("team", broker=os.environ["BROKER_URLS"], backend="rpc://")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"confirm_publish": True},
    task_publish_retry_policy={
        "max_retries": 60,
        "interval_start": 0.1,
        "interval_step": 0.2,
        "interval_max": 1,
    },
    worker_send_task_events=True,
    task_send_sent_event=True,
    result_expires=600,
)


def note(*words: object) -> None:
    """Append a line in one write, which is whole though many processes do it."""
    with Path(os.environ["RUNS"]).open("ab", buffering=0) as runs:
        runs.write(" ".join(str(word) for word in (*words, time.time())).encode() + b"\n")


@app.task  # type: ignore[untyped-decorator]
def work(number: int) -> int:
    note("work", number)
    return number


@app.task(bind=True, max_retries=5)  # type: ignore[untyped-decorator]
def fails_twice(self: celery.Task, number: int) -> int:
    note("fails_twice", number, self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0.5)
    return number


@app.task  # type: ignore[untyped-decorator]
def add(left: int, right: int) -> int:
    return left + right
