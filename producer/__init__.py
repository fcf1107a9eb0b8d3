"""The producer: reads a source, sends its events to Kafka, journals what was acknowledged."""
