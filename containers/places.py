"""Where servers are inside their containers. Standard library only, as the health checks read it every few seconds."""

from __future__ import annotations

from pathlib import Path

ZOOKEEPER_PORT = 2181
KAFKA_LOCAL_PORT = 9095
"""The broker's listener for the health check alone."""
SPARK_MASTER_PAGE, SPARK_WORKER_PAGE = 8080, 8081
SUPERVISOR_PORT = 19100
ACCESS_IS_SET = Path("/tmp/access-is-set")
"""Is there once Kafka's users and rights are as they should be."""
