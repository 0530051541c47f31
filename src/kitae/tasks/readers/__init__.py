"""Files of labelled examples, format by format."""
