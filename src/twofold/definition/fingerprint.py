"""A short name for what a view computes: equal fingerprints may share state, others may not."""

from __future__ import annotations

import hashlib
import json

from twofold.definition.model import Pipeline, View

_LENGTH = 16


def view(pipeline: Pipeline, declared: View) -> str:
    """Hash of everything that a view's rows depend on: windows, groups, measures, the lateness of its stream."""
    facts = {
        "id": pipeline.event.id,
        "time": pipeline.event.time,
        "lateness_s": pipeline.lateness.total_seconds(),
        "window_s": declared.window.total_seconds(),
        "every_s": declared.every.total_seconds(),
        "by": declared.by,
        "measures": {name: measure.declared for name, measure in declared.measures.items()},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_LENGTH]
