"""The contract: what a record must be. One home for Kafka, JSON lines, CSV and Parquet, without Spark or Airflow.

bytes or cells ─► decode ─► columns ─► rules, filter ─► event columns, outcome, reason
"""
