"""The torture rig: seeded faults on real Kafka, judged by a checker that shares no code with the service."""
