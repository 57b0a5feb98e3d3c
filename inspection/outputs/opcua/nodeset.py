"""The companion specification's nodes, as the OPC Foundation publishes them."""

from __future__ import annotations

import copy
import gzip
import xml.etree.ElementTree as ET
from importlib import resources

URI = "http://opcfoundation.org/UA/MachineVision"
_NS = "{http://opcfoundation.org/UA/2011/03/UANodeSet.xsd}"


def published() -> bytes:
    """`Opc.Ua.MachineVision.NodeSet2.xml` 1.0.0, byte for byte."""
    return gzip.decompress(resources.files(__package__).joinpath("machine_vision.xml.gz").read_bytes())


def completed() -> str:
    """The published nodes; subtypes of structures that state no fields of their own get their parent's.

    Without it asyncua 2.1.0 gives RecipeIdExternalDataType, RecipeIdInternalDataType and ConfigurationIdDataType no
    `DataTypeDefinition`: its clients cannot build ResultDataType then ("Unknown datatype for field ...
    ExternalRecipeId"), and the server takes them for their base type and writes that type's encoding id.
    """
    ET.register_namespace("", _NS[1:-1])
    ET.register_namespace("uax", "http://opcfoundation.org/UA/2008/02/Types.xsd")
    root = ET.fromstring(published())
    types = {node.attrib["NodeId"]: node for node in root.iter(f"{_NS}UADataType")}
    for node in types.values():
        definition = node.find(f"{_NS}Definition")
        parent = next(
            (ref.text for ref in node.iter(f"{_NS}Reference") if ref.get("ReferenceType") == "HasSubtype"), ""
        )
        inherited = types[parent].find(f"{_NS}Definition") if parent in types else None
        if inherited is None or (definition is not None and len(definition)):
            continue
        if definition is not None:
            node.remove(definition)
        mine = copy.deepcopy(inherited)
        mine.set("Name", node.attrib["BrowseName"])
        node.append(mine)
    return ET.tostring(root, encoding="unicode")


def ids() -> dict[str, int]:
    """Numbers of nodes by name: types (`ResultReadyEventType`), and the states and transitions of the two machines.

    The names of states and transitions are the same in no two of them, so one table holds them all.
    """
    found = {}
    for node in ET.fromstring(published()):
        number = int(node.get("NodeId", "i=0").rpartition("=")[2])
        name = node.get("BrowseName", "").partition(":")[2]
        machine = node.get("ParentNodeId") in ("ns=1;i=1017", "ns=1;i=1021")
        if node.tag.endswith("Type") or (machine and node.tag.endswith("UAObject")):
            found[name] = number
    return found
