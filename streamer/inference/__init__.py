"""The inference engine: a model repository, ONNX Runtime sessions, and a bounded pool that runs batches."""
