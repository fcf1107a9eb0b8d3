"""Makes a trigger again from what it serializes to, as the triggerer does, runs it, and prints its first event as JSON.

In a process of its own, for the reasons of tests/airflow_facts.py.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys

from airflow.triggers.base import BaseTrigger, TriggerEvent

from twofold_airflow.triggers import ServiceHealthTrigger


def made_again(trigger: BaseTrigger) -> BaseTrigger:
    """By class path and arguments, which go through JSON."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again: BaseTrigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()
    return again


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    """All there is, for a trigger of one event."""
    (event,) = [event async for event in trigger.run()]
    return event


if __name__ == "__main__":
    pipeline, service, until = sys.argv[1:]
    event = asyncio.run(first_event(made_again(ServiceHealthTrigger(pipeline, service, float(until)))))
    sys.stdout.write(f"EVENT {json.dumps({'kind': type(event).__name__, 'payload': event.payload})}\n")
