"""The way of a row in and out, a folder per station: consume, decode, produce, commit. Between them stand operators."""
