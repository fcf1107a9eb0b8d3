"""Spark programs of both layers. Each runs by hand as `python -m spark_jobs.<name>`, or by `twofold <command>`."""
