"""Sockets: byte streams, the server side, the client side, and pools of connections to targets."""
