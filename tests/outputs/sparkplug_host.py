"""A Sparkplug host by pysparkplug, which runs in an environment of its own: it needs an older paho.

Prints one JSON object for each message of the group `plant`; a line `rebirth` on its input sends that command.
"""

import json
import sys
import threading

import pysparkplug as spb


def show(_client, message):
    payload = message.payload
    metrics = getattr(payload, "metrics", None) or (
        (payload.bd_seq_metric,) if message.topic.message_type == "NDEATH" else ()
    )
    line = {
        "type": str(message.topic.message_type.value),
        "node": message.topic.edge_node_id,
        "device": message.topic.device_id,
        "seq": getattr(payload, "seq", None),
        "qos": int(message.qos),
        "retain": message.retain,
        "metrics": {
            metric.name: [
                metric.datatype.name,
                str(metric.value) if metric.datatype.name == "DATETIME" else metric.value,
            ]
            for metric in metrics
        },
        "historical": [metric.name for metric in metrics if metric.is_historical],
    }
    print(json.dumps(line), flush=True)


client = spb.Client()
client.connect("127.0.0.1", port=int(sys.argv[1]), blocking=False)
ready = threading.Event()
client.subscribe(spb.Topic(group_id="plant", message_type="#"), spb.QoS.AT_LEAST_ONCE, show)
client._client.on_subscribe = lambda *_: ready.set()
client._subscribe(spb.Topic(group_id="plant", message_type="#"), spb.QoS.AT_LEAST_ONCE)
assert ready.wait(30)
print(json.dumps({"type": "READY"}), flush=True)
for command in sys.stdin:
    now = spb.get_current_timestamp()
    name = "Node Control/Rebirth" if command.strip() == "rebirth" else command.strip()
    metric = spb.Metric(timestamp=now, name=name, datatype=spb.DataType.BOOLEAN, value=True)
    client.publish(
        spb.Message(
            topic=spb.Topic(group_id="plant", message_type=spb.MessageType.NCMD, edge_node_id="cell"),
            payload=spb.NCmd(timestamp=now, metrics=(metric,)),
            qos=spb.QoS.AT_MOST_ONCE,
            retain=False,
        ),
        include_dtypes=True,
    )
client.disconnect()
