"""What certificates of clients (X.509) say, and patterns for the names in them; knows nothing of requests."""
