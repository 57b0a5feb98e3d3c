"""Events and conditions of the vision system."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass, field
from typing import Any

from asyncua import Server, ua
from asyncua.common.events import Event
from asyncua.server.address_space import NodeData

INFORMATION, WARNING, ERROR = 100, 500, 800  # severities, of 1 ... 1000
CONDITIONS_KEPT = 100  # alarms that nobody confirms; their codes are few, and each has one condition

# asyncua 2.1.0 takes the types of an event's fields from the values of the type's nodes. In this nodeset most of them
# are null, so that ResultState, InternalRecipeId, ResultContent and others would be sent as null without a word.
FIELDS: dict[str, ua.VariantType] = {
    "ResultState": ua.VariantType.Int32,
    "IsPartial": ua.VariantType.Boolean,
    "CreationTime": ua.VariantType.DateTime,
    "ResultContent": ua.VariantType.Variant,
    "Transition": ua.VariantType.LocalizedText,
    "Transition/Id": ua.VariantType.NodeId,
    "FromState": ua.VariantType.LocalizedText,
    "FromState/Id": ua.VariantType.NodeId,
    "ToState": ua.VariantType.LocalizedText,
    "ToState/Id": ua.VariantType.NodeId,
    "CausePath": ua.VariantType.String,
    "NodeId": ua.VariantType.NodeId,
    "ConditionClassId": ua.VariantType.NodeId,
    "ConditionClassName": ua.VariantType.LocalizedText,
    "ConditionName": ua.VariantType.String,
    "BranchId": ua.VariantType.NodeId,
    "Retain": ua.VariantType.Boolean,
    "EnabledState": ua.VariantType.LocalizedText,
    "EnabledState/Id": ua.VariantType.Boolean,
    "AckedState": ua.VariantType.LocalizedText,
    "AckedState/Id": ua.VariantType.Boolean,
    "ConfirmedState": ua.VariantType.LocalizedText,
    "ConfirmedState/Id": ua.VariantType.Boolean,
    "Quality": ua.VariantType.StatusCode,
    "LastSeverity": ua.VariantType.UInt16,
    "Comment": ua.VariantType.LocalizedText,
    "ClientUserId": ua.VariantType.String,
    "ErrorString": ua.VariantType.String,
    "StopReaction": ua.VariantType.Boolean,
    "BlockReaction": ua.VariantType.Boolean,
}


class Emitter:
    """Sends events from the vision system's object; who listens at the Server object hears them too."""

    def __init__(self, server: Server, source: ua.NodeId, types: dict[str, ua.NodeId]) -> None:
        self.types = types
        self._service = server.iserver.subscription_service
        self._source = source

    async def emit(
        self,
        kind: str,
        text: str,
        *,
        severity: int = INFORMATION,
        at: datetime.datetime | None = None,
        event_id: bytes | None = None,
        fields: dict[str, Any] | None = None,
        subscription: int | None = None,
    ) -> None:
        """Sends one event.

        Args:
            kind: the event type's name. at: when it happened; None: now.
            fields: beyond those of every event, by name, with the parts of a path joined by `/`; structures by default.
            subscription: only to this one.
        """
        now = datetime.datetime.now(datetime.UTC)
        event = Event()
        event.add_property("EventId", event_id or uuid.uuid4().bytes, ua.VariantType.ByteString)
        event.add_property("EventType", self.types[kind], ua.VariantType.NodeId)
        event.add_property("SourceNode", self._source, ua.VariantType.NodeId)
        event.add_property("SourceName", "VisionSystem", ua.VariantType.String)
        event.add_property("Time", at or now, ua.VariantType.DateTime)
        event.add_property("ReceiveTime", now, ua.VariantType.DateTime)
        event.add_property("Message", ua.LocalizedText(text, "en"), ua.VariantType.LocalizedText)
        event.add_property("Severity", severity, ua.VariantType.UInt16)
        for name, value in (fields or {}).items():
            event.add_property(name, value, FIELDS.get(name, ua.VariantType.ExtensionObject))
        for emitting in (self._source, ua.NodeId(ua.ObjectIds.Server)):
            event.emitting_node = emitting
            await self._service.trigger_event(event, subscription_id=subscription)


@dataclass(kw_only=True, slots=True)
class Condition:
    """Something that a person must know, until somebody confirms it."""

    code: str
    node: ua.NodeId
    text: str
    error: bool  # the line stands still because of it
    event_id: bytes = b""
    acknowledged: bool = False
    confirmed: bool = False
    comment: str = ""
    at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


class Conditions:
    """Alarms as VisionWarningConditionType, what stops the line as VisionErrorConditionType: one for each code.

    Clients acknowledge and confirm them by the id of the condition's last event; a confirmed one is gone.
    """

    def __init__(self, server: Server, emitter: Emitter) -> None:
        self._space = server.iserver.aspace
        self._service = server.iserver.subscription_service
        self._emitter = emitter
        self._open: dict[str, Condition] = {}

    async def report(self, code: str, text: str, *, error: bool = False) -> None:
        """A new condition, or news of one that is open."""
        known = self._open.pop(code, None)
        node = ua.NodeId(f"VisionSystem.Conditions.{code}", 1)
        # Conditions stand in no folder, but asyncua calls a method only on an object whose id it knows.
        self._space[node] = NodeData(node)
        condition = Condition(code=code, node=node, text=text, error=error or bool(known and known.error))
        self._open[code] = condition
        while len(self._open) > CONDITIONS_KEPT:
            await self._close(next(iter(self._open.values())), "too many")
        await self._send(condition)

    async def acknowledge(self, event_id: bytes, comment: str) -> bool:
        """Somebody has seen it; False: no open condition has this event."""
        condition = self._find(event_id)
        if condition is not None:
            condition.acknowledged, condition.comment = True, comment
            await self._send(condition)
        return condition is not None

    async def confirm(self, event_id: bytes, comment: str) -> bool:
        """Somebody has done what was to do; False: no open condition has this event."""
        condition = self._find(event_id)
        if condition is not None:
            await self._close(condition, comment)
        return condition is not None

    async def confirm_all(self, comment: str) -> None:
        """Confirms whatever is open."""
        for condition in list(self._open.values()):
            await self._close(condition, comment)

    async def refresh(self, subscription: int) -> bool:
        """Sends all that is open to one subscription once more; False: there is no such subscription."""
        if subscription not in self._service.subscriptions:
            return False
        await self._emitter.emit("RefreshStartEventType", "Refresh begins.", subscription=subscription)
        for condition in list(self._open.values()):
            await self._send(condition, subscription=subscription)
        await self._emitter.emit("RefreshEndEventType", "Refresh ends.", subscription=subscription)
        return True

    def _find(self, event_id: bytes) -> Condition | None:
        return next((one for one in self._open.values() if one.event_id == event_id), None)

    async def _close(self, condition: Condition, comment: str) -> None:
        condition.acknowledged = condition.confirmed = True
        condition.comment = comment
        del self._open[condition.code]
        await self._send(condition)

    async def _send(self, condition: Condition, subscription: int | None = None) -> None:
        if subscription is None:  # a refresh repeats the same event
            condition.event_id = uuid.uuid4().bytes
        severity = ERROR if condition.error else WARNING
        acknowledged = "Acknowledged" if condition.acknowledged else "Unacknowledged"
        confirmed = "Confirmed" if condition.confirmed else "Unconfirmed"
        await self._emitter.emit(
            "VisionErrorConditionType" if condition.error else "VisionWarningConditionType",
            condition.text,
            severity=severity,
            at=condition.at,
            event_id=condition.event_id,
            subscription=subscription,
            fields={
                "NodeId": condition.node,
                "ConditionClassId": ua.NodeId(ua.ObjectIds.ProcessConditionClassType),
                "ConditionClassName": ua.LocalizedText("ProcessConditionClassType", "en"),
                "ConditionName": condition.code,
                "BranchId": ua.NodeId(),
                "Retain": not condition.confirmed,
                "EnabledState": ua.LocalizedText("Enabled", "en"),
                "EnabledState/Id": True,
                "AckedState": ua.LocalizedText(acknowledged, "en"),
                "AckedState/Id": condition.acknowledged,
                "ConfirmedState": ua.LocalizedText(confirmed, "en"),
                "ConfirmedState/Id": condition.confirmed,
                "Quality": ua.StatusCode(ua.StatusCodes.Good),
                "LastSeverity": severity,
                "Comment": ua.LocalizedText(condition.comment, "en"),
                "ClientUserId": "",
                "CausePath": "line",
                "ErrorString": condition.text,
                "StopReaction": condition.error,
                "BlockReaction": condition.error,
            },
        )
