"""The live page: what the camera shows, what the model says of it, and how the device is, in a browser.

`live` is the sink that the pipeline feeds, `board` what the page shows, `pages` the routes, `access` who may look,
`connection` the bounds on what a client may do to a socket, `static` the page itself. Nothing of Starlette or uvicorn
is loaded before the page is opened.
"""

from __future__ import annotations

from .live import Live

__all__ = ["Live"]
