"""From raw text to an encoder that knows your domain."""

__version__ = "0.1.0"
