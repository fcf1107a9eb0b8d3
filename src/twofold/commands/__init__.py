"""One module per command, found lazily by `twofold.cli`: reading an expression must not cost Kafka's imports."""
