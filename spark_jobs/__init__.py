"""The Spark jobs: streaming, batch, union, maintenance, and the pure transforms they share."""
