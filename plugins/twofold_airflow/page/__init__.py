"""The status page inside Airflow's UI: a FastAPI app whose every route asks who looks, and what they may see.

    access.py: user, role ─► app.py ─┬─► page, scripts, styles (web/, and Chart.js as the package chartkick ships it)
    core: twofold.status ────────────┼─► status.json ─► web/*.js draws it, again every few seconds
    runs.py: last runs of the DAGs ──┘
    runbooks.py: pages of the runbook, as HTML

It renders and serves only; what it shows is gathered by `twofold.status`.
"""
