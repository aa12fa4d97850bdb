"""What a worker may be told: every setting, where it may stand, and which keys of librdkafka exist."""
