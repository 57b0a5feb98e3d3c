"""From what a recipe says to the sink that does it; each kind's packages are imported only when it is used."""

from __future__ import annotations

from inspection.control import Alarm, Control
from inspection.outputs.options import AnyOutput, ModbusOptions, MqttOptions, OpcUaOptions
from inspection.outputs.sink import Sink


def open_sink(options: AnyOutput, *, control: Control, line: str, alarm: Alarm) -> Sink:
    """The sink for an output of a recipe, not yet connected: `Sink.open` does that.

    Raises:
        MissingExtra: a package is not installed. ConfigInvalid: a file or environment variable that it names is
            missing, or options that do not go together.
    """
    if isinstance(options, MqttOptions):
        if options.sparkplug is not None:
            from inspection.outputs.sparkplug import SparkplugSink

            return SparkplugSink(options, control, line, alarm)
        from inspection.outputs.mqtt import MqttSink

        return MqttSink(options, line)
    if isinstance(options, ModbusOptions):
        from inspection.outputs.modbus import ModbusSink

        return ModbusSink(options, control, line, alarm)
    if isinstance(options, OpcUaOptions):
        from inspection.outputs.opcua import OpcUaSink

        return OpcUaSink(options, control, line, alarm)
    from inspection.outputs.webhook import WebhookSink

    return WebhookSink(options, line)
