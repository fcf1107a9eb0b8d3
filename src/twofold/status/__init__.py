"""The status of a pipeline, as data: what the status page shows.

    catalog ──► tables (loaded again only when changed), rejected rows of new commits only ─┐
    services' /healthz, Kafka, results ─────────────────────────────────────────────────────┴─► gather.py: Status
    measures.py: what these come to, what is wrong, and what to do

Cheap enough to be asked every few seconds.
"""
