"""OPC UA for Machine Vision (OPC 40100-1) as an output and a door: see docs/opcua.md."""

from inspection.outputs.opcua.sink import OpcUaSink

__all__ = ["OpcUaSink"]
