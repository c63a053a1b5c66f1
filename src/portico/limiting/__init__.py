"""What rate limits and quotas have in common: how they are written, whom they are for, what is told of them, and what
becomes of a request. How they are counted is the store's (`portico.state.limits`).
"""
