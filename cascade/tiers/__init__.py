"""Whoever answers queries: the proxy, the small LLM stacked on it, and any language model."""
