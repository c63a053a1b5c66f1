"""From a Config to what answers requests, and the process that runs it."""
