"""The contract: what a record must be. One home for Kafka, JSON lines, CSV and Parquet, without Spark or Airflow.

bytes or cells ─► columns: decoded, typed, rules ─► judge ─► event columns, outcome, reason
                                     └─ not plainly right ─► reference, value by value
"""
