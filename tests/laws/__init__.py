"""What holds of every operator, whatever it does to rows: one suite over all folders of `streamer/operators/`."""
