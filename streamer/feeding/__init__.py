"""Getting events into a topic: where rows come from (`files`, `generator`), when they go (`pace`), and how (`send`)."""
