"""Where verdicts go: PLC, broker, server; each in a thread of its own, so that none of them holds up judging."""
