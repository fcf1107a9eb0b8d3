"""A first pipeline file from a sample of somebody's events; a person reads and corrects it. No Spark, no Airflow.

file, topic ─► sample: records ─► shapes: columns at paths ─► kinds: their types ─► pipeline_text: id, time, view, YAML
"""
