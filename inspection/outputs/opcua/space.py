"""The address space: one VisionSystem with what this line offers, and the values in it."""

from __future__ import annotations

import datetime
from typing import Any

from asyncua import Node, Server, ua

from inspection.control import LineState, RecipeInfo
from inspection.outputs.opcua import nodeset
from inspection.outputs.opcua.results import external_id, internal_id, new
from inspection.outputs.opcua.states import Transition, Vision

ROOT = "VisionSystem"
MACHINE = "VisionStateMachine"
AUTOMATIC = f"{MACHINE}.AutomaticModeStateMachine"
RECIPES = "RecipeManagement.Recipes"
PRODUCTS = "RecipeManagement.Products"
CONFIGURATIONS = "ConfigurationManagement.Configurations"
CONFIGURATIONS_KEPT = 100

# Optional parts that a line of this kind has no use for. Recipes and models are files that whoever runs the line puts
# there, so nothing is added, removed or sent by OPC UA; results are asked for by id instead of as nodes.
NOT_OFFERED = (
    "ConfigurationManagement.AddConfiguration",
    "ConfigurationManagement.ConfigurationTransfer",
    "ConfigurationManagement.ReleaseConfigurationHandle",
    "ConfigurationManagement.RemoveConfiguration",
    "RecipeManagement.AddRecipe",
    "RecipeManagement.RecipeTransfer",
    "RecipeManagement.ReleaseRecipeHandle",
    "RecipeManagement.RemoveRecipe",
    "RecipeManagement.UnlinkProduct",
    f"{PRODUCTS}.<Product>",
    "ResultManagement.ReleaseResultHandle",
    "ResultManagement.Results",
    "ResultManagement.ResultTransfer",
    "SafetyStateManagement",
    "DiagnosticLevel",
    f"{MACHINE}.ErrorStepModel",
    f"{MACHINE}.HaltedStepModel",
    f"{MACHINE}.PreoperationalStepModel",
    f"{AUTOMATIC}.InitializedStepModel",
    f"{AUTOMATIC}.ReadyStepModel",
    f"{AUTOMATIC}.SingleExecutionStepModel",
    f"{AUTOMATIC}.ContinuousExecutionStepModel",
    f"{AUTOMATIC}.SimulationMode",
)

# SystemStateDataType, the states of SEMI E10: productive, standby, scheduled and unscheduled downtime, nonscheduled.
SYSTEM_STATES = {
    LineState.RUNNING: 1,
    LineState.DRAINING: 1,
    LineState.STOPPED: 2,
    LineState.STARTING: 4,
    LineState.FAILED: 5,
    LineState.CLOSED: 6,
}


class Space:
    """Nodes by their path below `VisionSystem`; all ids are strings of the server's own namespace, index 1.

    Attributes:
        types: ids of the companion specification's types, states and transitions, by name.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.types: dict[str, ua.NodeId] = {}
        self._index = 0
        self._hashes: dict[str, tuple[str | None, datetime.datetime]] = {}  # of recipes, as last known, and since when
        self._products: set[str] = set()
        self._configurations: list[str] = []

    async def build(self) -> None:
        """Loads the nodeset and makes the VisionSystem."""
        await self.server.import_xml(xmlstring=nodeset.completed())
        self._index = await self.server.get_namespace_index(nodeset.URI)
        self.types = {name: ua.NodeId(number, self._index) for name, number in nodeset.ids().items()}
        for name in ("RefreshStartEventType", "RefreshEndEventType"):
            self.types[name] = ua.NodeId(getattr(ua.ObjectIds, name))
        objects = self.server.nodes.objects
        root = await objects.add_object(
            self.id(""), ua.QualifiedName(ROOT, 1), self.types["VisionSystemType"], instantiate_optional=True
        )
        await self._remove(*NOT_OFFERED)
        await root.set_event_notifier([ua.EventNotifier.SubscribeToEvents])
        await self.server.nodes.server.add_reference(root, ua.ObjectIds.HasNotifier)
        await self.server.nodes.server.set_event_notifier([ua.EventNotifier.SubscribeToEvents])

    def id(self, path: str) -> ua.NodeId:
        """The id of the node at a path of names below VisionSystem, joined by dots."""
        return ua.NodeId(f"{ROOT}.{path}" if path else ROOT, 1)

    def node(self, path: str) -> Node:
        """The node at such a path."""
        return self.server.get_node(self.id(path))

    async def _remove(self, *paths: str) -> None:
        """Takes nodes away, with all below them.

        References to them are dropped in one go over the address space: asyncua's own way goes over it once for each
        node, which is half of the time that the server takes to start (4.6 s of 8.6 s under the profiler).
        """
        space = self.server.iserver.aspace
        roots = tuple(f"{ROOT}.{path}" for path in paths)
        below = tuple(f"{root}." for root in roots)
        gone = {
            node
            for node in list(space.keys())
            if node.NamespaceIndex == 1 and (node.Identifier in roots or str(node.Identifier).startswith(below))
        }
        request = ua.DeleteNodesParameters()
        request.NodesToDelete = [ua.DeleteNodesItem(NodeId=node, DeleteTargetReferences=False) for node in gone]
        for result in await self.server.iserver.isession.delete_nodes(request):
            result.check()
        for node in list(space.keys()):
            references = space[node].references
            if any(reference.NodeId in gone for reference in references):
                references[:] = [reference for reference in references if reference.NodeId not in gone]

    async def show_state(self, state: Vision) -> None:
        """Writes the state into both machines."""
        outer = "Operational" if state.operational else state.value
        await self._current(MACHINE, outer)
        await self._current(AUTOMATIC, state.value if state.operational else None)

    async def _current(self, machine: str, name: str | None) -> None:
        text = ua.LocalizedText(name, "en") if name else ua.LocalizedText()
        await self.node(f"{machine}.CurrentState").write_value(text)
        value = ua.Variant(self.types[name] if name else ua.NodeId(), ua.VariantType.NodeId)
        await self.node(f"{machine}.CurrentState.Id").write_value(value)

    def transition_fields(self, step: Transition) -> dict[str, Any]:
        """The fields of a StateChangedEventType."""
        return {
            "Transition": ua.LocalizedText(step.name, "en"),
            "Transition/Id": self.types[step.name],
            "FromState": ua.LocalizedText(step.source_name, "en"),
            "FromState/Id": self.types[step.source_name],
            "ToState": ua.LocalizedText(step.target_name, "en"),
            "ToState/Id": self.types[step.target_name],
        }

    async def show_system(self, line: LineState, halted: bool) -> None:
        """Writes the state of SEMI E10."""
        state = 6 if halted else SYSTEM_STATES[line]
        value = new("SystemStateDescriptionDataType", State=ua.SystemStateDataType(state), StateDescription=str(line))
        await self.node("SystemState").write_value(value)

    async def show_recipes(self, recipes: list[RecipeInfo], prepared: str | None) -> list[str]:
        """Makes the recipes' and products' nodes what they should be; returns ids of recipes that are new.

        Args:
            prepared: id of the recipe that parts are judged by.
        """
        fresh = [recipe.id for recipe in recipes if recipe.id not in self._hashes]
        for recipe in recipes:
            await self._show_recipe(recipe, recipe.id == prepared)
        for gone in set(self._hashes) - {recipe.id for recipe in recipes}:
            await self._remove(f"{RECIPES}.{gone}")
            del self._hashes[gone]
        products = {recipe.product for recipe in recipes}
        for product in products - self._products:
            value = new("ProductDataType", ExternalId=new("ProductIdDataType", Id=product))
            await self.node(PRODUCTS).add_variable(
                self.id(f"{PRODUCTS}.{product}"),
                ua.QualifiedName(product, 1),
                value,
                datatype=self.types["ProductDataType"],
            )
        for product in self._products - products:
            await self._remove(f"{PRODUCTS}.{product}")
        self._products = products
        return fresh

    async def _show_recipe(self, recipe: RecipeInfo, prepared: bool) -> None:
        path = f"{RECIPES}.{recipe.id}"
        if recipe.id not in self._hashes:
            parent, kind = self.node(RECIPES), self.types["RecipeType"]
            await parent.add_object(self.id(path), ua.QualifiedName(recipe.id, 1), kind, instantiate_optional=False)
            for name, datatype, rank in (
                ("ExternalId", "RecipeIdExternalDataType", -1),
                ("LinkedProducts", "ProductIdDataType", 1),
            ):
                await self.node(path).add_property(
                    self.id(f"{path}.{name}"), ua.QualifiedName(name, self._index), None,
                    varianttype=ua.VariantType.ExtensionObject, datatype=self.types[datatype],
                )  # fmt: skip
                rank_value = ua.DataValue(ua.Variant(rank, ua.VariantType.Int32))
                await self.node(f"{path}.{name}").write_attribute(ua.AttributeIds.ValueRank, rank_value)
        known, since = self._hashes.get(recipe.id, (None, datetime.datetime.now(datetime.UTC)))
        if None not in (known, recipe.hash) and known != recipe.hash:  # one that is not loaded has none just now
            since = datetime.datetime.now(datetime.UTC)
        self._hashes[recipe.id] = (recipe.hash or known, since)
        products = [new("ProductIdDataType", Id=recipe.product)]
        await self.node(f"{path}.InternalId").write_value(internal_id(recipe))
        await self.node(f"{path}.ExternalId").write_value(external_id(recipe))
        await self.node(f"{path}.LinkedProducts").write_value(ua.Variant(products, ua.VariantType.ExtensionObject))
        await self.node(f"{path}.LastModified").write_value(ua.Variant(since, ua.VariantType.DateTime))
        await self.node(f"{path}.IsPrepared").write_value(ua.Variant(prepared, ua.VariantType.Boolean))

    async def show_configuration(self, configuration: Any) -> None:
        """Writes the active configuration (ConfigurationDataType), and keeps a node for each that was active."""
        await self.node("ConfigurationManagement.ActiveConfiguration").write_value(configuration)
        name = configuration.InternalId.Id
        if name in self._configurations:
            return
        self._configurations.append(name)
        await self.node(CONFIGURATIONS).add_variable(
            self.id(f"{CONFIGURATIONS}.{name}"), ua.QualifiedName(name, 1), configuration,
            datatype=self.types["ConfigurationDataType"],
        )  # fmt: skip
        if len(self._configurations) > CONFIGURATIONS_KEPT:
            gone = self._configurations.pop(0)
            await self._remove(f"{CONFIGURATIONS}.{gone}")
