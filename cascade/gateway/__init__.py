"""The OpenAI-compatible gateway: a raw ASGI hot path, FastAPI only for the admin pages."""
