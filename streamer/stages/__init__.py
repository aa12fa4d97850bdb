"""The stages a row passes, one file each, in this order: consume, decode, window, infer, flag, produce, commit."""
