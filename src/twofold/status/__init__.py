"""How a pipeline does, as data: what the status page shows.

    catalog ──► tables.py (reloaded only when changed) ──► layers.py, speed.py: metadata only
                                                      └──► outcomes.py: rejected rows of new landings only
    services' /healthz, Kafka, results ──► gather.py ──► Status ──► problems.py: what is wrong, and what to do

Cheap enough to be asked every few seconds: no row of a table is read twice.
"""
