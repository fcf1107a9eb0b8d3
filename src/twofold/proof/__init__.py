"""`twofold prove`: the invariants, checked on the live tables against Kafka and an independent recomputation.

    journals, Kafka's ends ─► wait for the job ─► pin the tables ─► DuckDB ─► one Check per invariant

Nothing here is shared with the SQL that it checks: precedence, windows and file reading are written a second time.
"""
