"""The two long-running services of a pipeline, producer and streaming job: run, watched, restarted within a budget.

    controller ──XML-RPC──► supervisord + inside.py ──► <p>-producer, <p>-stream     record.py: who wants what, budget
        └──────GET /healthz──► the service                                           verdict.py: is it healthy?

One implementation for a laptop (the stack's supervisord) and for containers (a supervisord in the producer's and in
the streaming job's); where they are is in the settings. Run manually: `twofold services`.
"""
