"""The embedded stack: PostgreSQL, ZooKeeper, Kafka and MinIO under a supervisor, without Docker.

    Settings ─► programs (data) ─► supervisord.conf ─► supervisord ─► postgres, zookeeper, kafka[, minio]
                     │                                     ▲
                     └─► health checks                     └── XML-RPC on loopback: start, stop, state

Run manually: `twofold up`, `twofold status`, `twofold down`.
"""
