"""The router for FastAPI, called in the process and served by uvicorn."""
