"""6 Data quality: what became of the records, why, what came late and was healed, and what was proved."""

from __future__ import annotations

from monitoring.boards.model import GREEN, PROVED, RED, Board, Panel, Query, Row, upto
from monitoring.boards.promql import P, last, of, per_second


def _shares(series: str) -> str:
    """Each outcome's part of all."""
    return f"{of(series)} / on (pipeline) group_left sum by (pipeline) ({of(series)})"


OUTCOMES = Row(
    "Outcomes",
    (
        Panel(
            "Stream",
            "Share of each outcome among the records streamed within ten minutes.",
            "percentunit",
            (
                Query(
                    _shares("pipeline_outcome:stream_outcomes:increase10m"),
                    "{{pipeline}} {{outcome}}",
                ),
            ),
            stacked=True,
            runbook="rejects-high",
        ),
        Panel(
            "Files",
            "Share of each outcome among the records of files landed within an hour.",
            "percentunit",
            (
                Query(
                    _shares("pipeline_outcome:batch_outcomes:increase1h"),
                    "{{pipeline}} {{outcome}}",
                ),
            ),
            stacked=True,
            runbook="rejects-high",
        ),
        Panel(
            "Rejected",
            "Share of the records that broke the contract.",
            "percentunit",
            (
                Query(of("pipeline:stream_rejected:ratio10m"), "{{pipeline}} stream"),
                Query(of("pipeline:batch_rejected:ratio1h"), "{{pipeline}} files"),
            ),
            steps=upto(0.005, 0.01),
            base=GREEN,
            runbook="rejects-high",
        ),
    ),
)
REASONS = Row(
    "Rejects",
    (
        Panel(
            "By reason",
            "Streamed records rejected per second, by their first fault. `twofold rejects` shows them.",
            "rps",
            (
                Query(
                    per_second("twofold_stream_rejected_total", "pipeline", "reason"),
                    "{{pipeline}} {{reason}}",
                ),
            ),
            stacked=True,
            width=12,
            runbook="rejects-high",
        ),
        Panel(
            "Since the start",
            "Records rejected since the exporter's start, by the kind of their first fault.",
            "short",
            (
                Query(
                    f"sum by (pipeline, reason) ({of('twofold_stream_rejected_total')})",
                    "{{pipeline}} {{reason}}",
                ),
            ),
            "stat",
            ((1, RED),),
            GREEN,
            width=12,
            runbook="rejects-high",
        ),
    ),
)
LATE = Row(
    "Late and healed",
    (
        Panel(
            "Late",
            "Share of the rows for a view that came after its watermark, within ten minutes.",
            "percentunit",
            (Query(of("pipeline_query:stream_late:ratio10m"), "{{pipeline}} {{query}}"),),
            steps=upto(0.01, 0.05),
            base=GREEN,
            runbook="late-high",
        ),
        Panel(
            "Healed",
            "Late rows that the last unions brought into their windows.",
            "short",
            (Query(last("twofold_compare_healed_rows"), "{{pipeline}}"),),
        ),
        Panel(
            "Duplicates and corrections",
            "Rows that unions left out as duplicates, or took as corrections, since the exporter's start.",
            "short",
            (
                Query(
                    f'sum by (pipeline, result) (twofold_union_rows_total{{{P},result=~"duplicate|corrected"}})',
                    "{{pipeline}} {{result}}",
                ),
            ),
        ),
    ),
)
PROOF = Row(
    "Proof",
    (
        Panel(
            "Invariants",
            "What the last `twofold prove` found, by invariant. A day and two hours after it this is empty.",
            "short",
            (
                Query(
                    of("pipeline_invariant:prove_holds:last"),
                    "{{pipeline}} {{invariant}}",
                    only=PROVED,
                ),
            ),
            "stat",
            ((1, GREEN),),
            RED,
            width=12,
            words=((0, "violated"), (1, "holds")),
            no_value="not proved yet",
            runbook="invariant-violated",
        ),
        Panel(
            "Not there yet",
            "Invariants that the last proof could only check in part, as the layer was behind. Not a violation.",
            "short",
            (
                Query(
                    last("twofold_prove_behind", "invariant"),
                    "{{pipeline}} {{invariant}}",
                    only=PROVED,
                ),
            ),
            "stat",
            ((1, "orange"),),
            GREEN,
            width=12,
            words=((0, "complete"), (1, "behind")),
            no_value="not proved yet",
            runbook="stream-lagging",
        ),
    ),
)

BOARD = Board(
    "twofold-quality",
    "6 Data quality",
    "What became of the records and why, what came late and was healed, and what was proved.",
    (OUTCOMES, REASONS, LATE, PROOF),
)
