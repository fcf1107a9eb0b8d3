"""Reading without a JVM: DuckDB over the tables as pyiceberg finds them, each pinned at one snapshot.

SQL ─► statements (what it reads) ─► pinned (snapshot, files) ─► engine (files as DuckDB relations) ─┐
                                             │                                                       ▼
                                             └─► unified (the two layers folded) ──────────────► plain names
the plan of the SQL ─► pruning (which ranges it needs) ─► fewer files ─► run ─► output
"""

from twofold.reader.session import Reader

__all__ = ["Reader"]
