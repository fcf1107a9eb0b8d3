"""Configuration of the monitoring, and the Python that makes or serves parts of it; never installed."""
