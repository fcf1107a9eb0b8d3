"""Reading without a JVM: DuckDB over the tables as pyiceberg finds them, each pinned at one snapshot.

SQL ─► names (what it reads) ─► pinned (snapshot, files) ─► source (files as a DuckDB relation) ─┐
                                         │                                                       ▼
                                         └─► events, views (the two layers folded) ──────► plain names
the plan of the SQL ─► narrow (which ranges it needs) ─► fewer files ─► run
"""

from twofold.reader.session import Reader

__all__ = ["Reader"]
