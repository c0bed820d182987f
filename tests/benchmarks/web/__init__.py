"""The speed of the router for FastAPI, beside the endpoints of the tutorials and the routers of other packages."""
