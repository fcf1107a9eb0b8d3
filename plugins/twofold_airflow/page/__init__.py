"""The status page inside Airflow's UI: a FastAPI app whose every route asks who looks, and what they may see.

core: twofold.status ───────────┐
dags.py: last runs of the DAGs ─┴─► app.py: user, role ─► status.json ─► web/*.js draws it, every few seconds
content.py: scripts, styles (web/, and Chart.js as the package chartkick ships it), pages of the runbook
"""
