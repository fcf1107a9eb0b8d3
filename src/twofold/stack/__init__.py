"""The embedded stack: PostgreSQL, ZooKeeper, Kafka and MinIO under a supervisor, without Docker."""
