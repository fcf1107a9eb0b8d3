"""Where servers are inside their containers. Standard library only, as the health checks read it every few seconds."""

from __future__ import annotations

from pathlib import Path

ZOOKEEPER_PORT = 2181
SPARK_MASTER_PAGE, SPARK_WORKER_PAGE = 8080, 8081
SUPERVISOR_PORT = 19100
ACCESS_IS_SET = Path("/tmp/access-is-set")
"""Is there once Kafka's users and rights are as they should be."""


def kafka_local_port(node: int) -> int:
    """Where a broker listens for its health check alone. ZooKeeper mode refuses two brokers of the same address."""
    return 9095 + node
