"""The live view of a worker: its numbers over the last seconds (`numbers`), drawn (`view`) or as one line (`plain`)."""
