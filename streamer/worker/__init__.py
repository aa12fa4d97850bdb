"""The Kafka runner: one thread that moves rows, its partitions, and what makes it pause, replace or stop."""
