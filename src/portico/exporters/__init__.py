"""What is told of requests to the world outside: its formats, and the ways there."""
