"""decode, operators and encode as one, without Kafka."""
