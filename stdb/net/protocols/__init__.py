"""The WebSocket protocols: one dialect a file, `registry` lists them, `dialect` is what they share."""
