"""Where frames come from: one small protocol, and the kinds of cameras that speak it."""
