"""The stages: each one frozen config and one run(config, inputs, out). They meet on disk only."""
