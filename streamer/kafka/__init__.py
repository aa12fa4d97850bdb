"""What is between us and Kafka: clients, their configuration, questions to a cluster, and a log in memory with the same rules."""
